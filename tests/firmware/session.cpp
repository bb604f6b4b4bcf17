// The node of the firmware with sensors that are set by hand: steps come on standard input, the
// lines that it writes go to standard output. With an argument `frames` or `bodies` it answers what
// its parsers make of each line instead.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "et_core.h"

namespace {

struct Bench : et::Port {
  et::value_t values[ET_SENSORS];
  bool link;
  int16_t signal;
  uint8_t charge;
  uint8_t memory[1024];

  Bench() : link(true), signal(0), charge(0xFF) {
    for (int i = 0; i < ET_SENSORS; i++) values[i] = et::NONE;
    memset(memory, 0xFF, sizeof memory);
  }
  void put(char c) override { putchar(c); }
  et::value_t read(uint8_t property, uint32_t) override { return values[property]; }
  void actuate(uint8_t, et::value_t) override {}
  bool ready(et::Kind) override { return link; }
  void begin(et::Kind, uint32_t) override {}
  void end() override { putchar('\n'); }
  uint32_t acknowledged(uint32_t sent) override { return sent; }
  void load(uint16_t at, void *to, uint8_t len) override { memcpy(to, memory + at, len); }
  void save(uint16_t at, const void *from, uint8_t len) override { memcpy(memory + at, from, len); }
  void restart() override {}
  bool radio(const char *) override { return false; }
  int16_t rssi() override { return signal; }
  uint8_t battery(uint32_t) override { return charge; }
};

}  // namespace

int main(int, char **) {
  static Bench bench;
  static et::Node node(bench);
  uint32_t now = 0;
  node.start(now, et::CAUSE_POWER);
  char line[512];
  while (fgets(line, sizeof line, stdin)) {
    line[strcspn(line, "\n")] = 0;
    char *rest = strchr(line, ' ');
    if (!rest) continue;
    *rest++ = 0;
    if (!strcmp(line, "set")) {
      char *value = strchr(rest, ' ') + 1;
      bench.values[atoi(rest)] = strcmp(value, "none") ? static_cast<et::value_t>(atol(value)) : et::NONE;
    } else if (!strcmp(line, "run")) {
      for (long left = atol(rest); left > 0; left--) node.poll(now++);
    } else if (!strcmp(line, "cmd")) {
      node.command(rest, now);
    } else if (!strcmp(line, "desired")) {
      char *body = strchr(rest, ' ');
      *body++ = 0;
      node.desired(static_cast<uint32_t>(atol(rest)), body, now);
    } else if (!strcmp(line, "rssi")) {
      bench.signal = static_cast<int16_t>(atoi(rest));  // none: 0
    } else if (!strcmp(line, "battery")) {
      bench.charge = strcmp(rest, "none") ? static_cast<uint8_t>(atoi(rest)) : 0xFF;
    } else if (!strcmp(line, "link")) {
      bench.link = !strcmp(rest, "up");
      if (bench.link) node.connected();
    }
  }
  return 0;
}
