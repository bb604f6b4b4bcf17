// The board that is a process. Its inputs are lines on standard input, taken as they come:
//   analog PIN MILLIVOLTS     swing PIN MILLIVOLTS (from one reading to the next)
//   digital PIN 0|1
//   part PLACE QUANTITY=VALUE ... (the emulated part at this pin or I2C address: `part 0x23 light=300`)
//   part PLACE off|on|EVENT
//   value PROPERTY UNITS (by number and in fixed point, in place of its sensor)
//   battery PERCENT (in place of its pin)   rssi DBM (at the start what ET_RSSI says, else -60)
//   network SSID up|down      hang        quit
// With ET_QUIT_AT_END the process ends with its input, and waits for the first of it.
// It prints what it does with its outputs: `digital PIN LEVEL`, `duty PIN DUTY`.
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "Arduino.h"
#include "EEPROM.h"
#include "WiFi.h"
#include "Wire.h"
#include "et_emulated.h"

void setup();
void loop();

EspClass ESP;
HardwareSerial Serial;
EEPROMClass EEPROM;
WiFiClass WiFi;
TwoWire Wire;

namespace {

const int PINS = 80;
const int ADC_MILLIVOLTS = 3300, ADC_MAX = 4095;
int millivolts[PINS], swings[PINS], levels[PINS];
bool upward[PINS];
char **arguments;
bool value_given[16];
int32_t value_is[16];
int battery_is = -1;
int rssi_is = 0;

// What is attached to pins and, above them, to I2C addresses.
const int ADDRESSES = 128;
emulated::Part *attached[PINS + ADDRESSES];

// The answer of a part on one wire. While it is read, time is counted in calls: the waveform is the
// same on a busy machine.
struct Answer {
  int pin, at, edges;
  uint8_t spans[90];
} answer = {-1, 0, 0, {0}};
bool output[PINS];
unsigned long counted_us = 0;

struct Network {
  char ssid[33];
  bool down;
} networks[8];
char joined[33] = "";

int64_t clock_us() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<int64_t>(now.tv_sec) * 1000000 + now.tv_nsec / 1000;
}
const int64_t started_us = clock_us();

bool pin_is_good(int pin) { return pin >= 0 && pin < PINS; }

emulated::Part *part_at(int pin) { return pin_is_good(pin) && attached[pin] ? attached[pin] : NULL; }

// `part PLACE QUANTITY=VALUE ...` or `part PLACE EVENT`.
void tell_part(char *place, char *words) {
  const bool bus = !strncmp(place, "0x", 2);
  const long number = strtol(place, NULL, 0);
  if (number < 0 || number >= (bus ? ADDRESSES : PINS)) return;
  emulated::Part *part = attached[bus ? PINS + number : number];
  if (!part) return;
  for (char *word = strtok(words, " "); word; word = strtok(NULL, " ")) {
    char *value = strchr(word, '=');
    if (value) *value++ = 0;
    if (value) part->set(word, atof(value));
    else part->event(word);
  }
}

void obey(char *line) {
  char word[16], text[40], more[40];
  int pin = -1, a = 0, b = 0;
  if (sscanf(line, "network %32s %15s", text, more) == 2) {
    for (Network &network : networks) {
      if (network.ssid[0] && strcmp(network.ssid, text)) continue;
      strcpy(network.ssid, text);
      network.down = !strcmp(more, "down");
      return;
    }
  }
  int begin = 0;
  if (sscanf(line, "part %15s %n", word, &begin) == 1 && begin) return tell_part(word, line + begin);
  if (!strcmp(line, "quit")) _exit(0);
  if (!strcmp(line, "hang")) {
    // The watchdog of a board: after its time the process starts anew.
    sleep(1);
    setenv("ET_CAUSE", "wdt", 1);
    execv("/proc/self/exe", arguments);
  }
  if (sscanf(line, "battery %d", &battery_is) == 1 || sscanf(line, "rssi %d", &rssi_is) == 1) return;
  if (sscanf(line, "value %d %d", &pin, &a) == 2) {
    if (pin >= 0 && pin < 16) {
      value_given[pin] = true;
      value_is[pin] = a;
    }
    return;
  }
  const int found = sscanf(line, "%15s %d %39s %d", word, &pin, text, &b);
  if (found < 3 || !pin_is_good(pin)) return;
  a = atoi(text);
  if (!strcmp(word, "analog")) millivolts[pin] = a;
  if (!strcmp(word, "swing")) swings[pin] = a;
  if (!strcmp(word, "digital")) levels[pin] = a;
}

void take_input() {
  static char line[128];
  static size_t len = 0;
  static bool open = true;
  pollfd ready = {0, POLLIN, 0};
  while (open && poll(&ready, 1, 0) > 0) {
    char bytes[256];
    const ssize_t got = read(0, bytes, sizeof bytes);
    if (got <= 0) {
      if (getenv("ET_QUIT_AT_END")) _exit(0);
      open = false;  // its inputs stay as they are
      return;
    }
    for (ssize_t i = 0; i < got; i++) {
      if (bytes[i] != '\n') {
        if (len < sizeof line - 1) line[len++] = bytes[i];
        continue;
      }
      line[len] = 0;
      len = 0;
      obey(line);
    }
  }
}

}  // namespace

const char *et_host_setting(const char *name, const char *otherwise);
const char *et_host_setting(const char *name, const char *otherwise) {
  const char *found = getenv(name);
  return found ? found : otherwise;
}

bool et_host_value(uint8_t property, int32_t &value) {
  if (property >= 16 || !value_given[property]) return false;
  value = value_is[property];
  return true;
}

bool et_host_battery(uint8_t &percent) {
  if (battery_is < 0) return false;
  percent = static_cast<uint8_t>(battery_is);
  return true;
}

unsigned long millis() { return static_cast<unsigned long>(static_cast<uint32_t>((clock_us() - started_us) / 1000)); }
unsigned long micros() { return answer.pin >= 0 ? counted_us : static_cast<unsigned long>(clock_us() - started_us); }
void delay(unsigned long ms) { usleep(static_cast<useconds_t>(ms * 1000)); }
void enableLoopWDT() {}

esp_reset_reason_t esp_reset_reason() {
  const char *cause = et_host_setting("ET_CAUSE", "power");
  return !strcmp(cause, "wdt") ? ESP_RST_TASK_WDT : !strcmp(cause, "sw") ? ESP_RST_SW : ESP_RST_POWERON;
}

void EspClass::restart() {
  setenv("ET_CAUSE", "sw", 1);
  execv("/proc/self/exe", arguments);
  _exit(1);
}

void et_host_attach(uint8_t place, bool bus, emulated::Part &part) {
  if (place < (bus ? ADDRESSES : PINS)) attached[bus ? PINS + place : place] = &part;
}
emulated::Part *et_host_on_bus(uint8_t address) { return address < ADDRESSES ? attached[PINS + address] : NULL; }

// A pin that was an output and becomes an input ends a start pulse.
void pinMode(uint8_t pin, uint8_t mode) {
  if (!pin_is_good(pin)) return;
  // The last edge of an answer is not waited for: time goes on as soon as anything else is done.
  answer.pin = -1;
  const bool pulse = output[pin] && mode != OUTPUT;
  output[pin] = mode == OUTPUT;
  emulated::Part *part = part_at(pin);
  if (!pulse || !part || part->off()) return;
  answer.edges = part->answer(answer.spans);
  if (!answer.edges) return;
  answer.at = 0;
  answer.pin = pin;
  counted_us = static_cast<unsigned long>(clock_us() - started_us);
}

int digitalRead(uint8_t pin) {
  if (answer.pin == pin) {
    counted_us++;
    // Starts high, and every edge turns it.
    if (answer.spans[answer.at] == 0 || --answer.spans[answer.at] == 0) answer.at++;
    if (answer.at >= answer.edges) answer.pin = -1;
    return answer.at % 2 == 0;
  }
  // A line on which a part answers is high while it does not.
  uint8_t spans[90];
  emulated::Part *part = part_at(pin);
  if (part && part->answer(spans)) return HIGH;
  return part && part->given() ? part->level() : levels[pin];
}

void digitalWrite(uint8_t pin, uint8_t level) {
  if (!pin_is_good(pin) || levels[pin] == level) return;
  levels[pin] = level;
  // The start pulse of a part with an answer is nobody's output.
  uint8_t spans[90];
  emulated::Part *part = part_at(pin);
  if (part && part->answer(spans)) return;
  printf("digital %d %d\n", pin, level);
  fflush(stdout);
}

void analogWrite(uint8_t pin, int duty) {
  printf("duty %d %d\n", pin, duty);
  fflush(stdout);
}

int analogRead(uint8_t pin) {
  double level = millivolts[pin];
  emulated::Part *part = part_at(pin);
  if (part && part->given()) {
    level = part->off() ? 0 : part->millivolts(ADC_MILLIVOLTS);
  } else if (swings[pin]) {
    upward[pin] = !upward[pin];
    level += upward[pin] ? swings[pin] / 2 : -swings[pin] / 2;
  }
  const int raw = static_cast<int>(level * ADC_MAX / ADC_MILLIVOLTS);
  return raw < 0 ? 0 : raw > ADC_MAX ? ADC_MAX : raw;
}

int HardwareSerial::available() { return 0; }
int HardwareSerial::read() { return -1; }
size_t HardwareSerial::write(uint8_t byte) { return fwrite(&byte, 1, 1, stdout); }

// ---- I2C ----------------------------------------------------------------------------------------

void TwoWire::beginTransmission(uint8_t address) {
  address_ = address;
  len_ = 0;
}
size_t TwoWire::write(uint8_t byte) {
  if (len_ >= sizeof buffer_) return 0;
  buffer_[len_++] = byte;
  return 1;
}
// As on boards: 2 if nothing is at the address, 3 if what is there refuses the bytes.
uint8_t TwoWire::endTransmission() {
  emulated::Part *part = et_host_on_bus(address_);
  if (!part || part->off()) return 2;
  return part->take(buffer_, len_, static_cast<uint32_t>(millis())) ? 0 : 3;
}
uint8_t TwoWire::requestFrom(uint8_t address, uint8_t len) {
  emulated::Part *part = et_host_on_bus(address);
  len_ = at_ = 0;
  if (!part || part->off() || len > sizeof buffer_) return 0;
  if (part->give(buffer_, len, static_cast<uint32_t>(millis()))) len_ = len;
  return len_;
}
int TwoWire::read() { return at_ < len_ ? buffer_[at_++] : -1; }

// ---- permanent memory -------------------------------------------------------------------------

namespace {
uint8_t memory[1024];
}

void EEPROMClass::begin(unsigned) {
  memset(memory, 0xFF, sizeof memory);
  FILE *file = fopen(et_host_setting("ET_EEPROM", ""), "rb");
  if (!file) return;
  if (fread(memory, 1, sizeof memory, file) != sizeof memory) memset(memory, 0xFF, sizeof memory);
  fclose(file);
}
uint8_t EEPROMClass::read(int at) { return at >= 0 && at < static_cast<int>(sizeof memory) ? memory[at] : 0xFF; }
void EEPROMClass::write(int at, uint8_t byte) {
  if (at >= 0 && at < static_cast<int>(sizeof memory)) memory[at] = byte;
}
void EEPROMClass::commit() {
  const char *path = et_host_setting("ET_EEPROM", "");
  FILE *file = *path ? fopen(path, "wb") : NULL;
  if (!file) return;
  if (fwrite(memory, 1, sizeof memory, file) != sizeof memory) fprintf(stderr, "the memory was not kept\n");
  fclose(file);
}

// ---- network ----------------------------------------------------------------------------------

void WiFiClass::begin(const char *ssid, const char *) { snprintf(joined, sizeof joined, "%s", ssid); }
void WiFiClass::disconnect() { joined[0] = 0; }
int WiFiClass::status() {
  if (!joined[0]) return WL_DISCONNECTED;
  for (const Network &network : networks)
    if (!strcmp(network.ssid, joined) && network.down) return WL_DISCONNECTED;
  return WL_CONNECTED;
}

// As on boards: 0 while no network is joined.
int8_t WiFiClass::RSSI() {
  if (!rssi_is) rssi_is = atoi(et_host_setting("ET_RSSI", "-60"));
  return status() == WL_CONNECTED ? static_cast<int8_t>(rssi_is) : static_cast<int8_t>(0);
}

int WiFiClient::connect(const char *host, uint16_t port) {
  stop();
  char service[8];
  snprintf(service, sizeof service, "%u", port);
  addrinfo hints, *found = NULL;
  memset(&hints, 0, sizeof hints);
  hints.ai_socktype = SOCK_STREAM;
  if (getaddrinfo(host, service, &hints, &found) || !found) return 0;
  socket_ = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const bool good = socket_ >= 0 && ::connect(socket_, found->ai_addr, found->ai_addrlen) == 0;
  freeaddrinfo(found);
  if (!good) {
    stop();
    return 0;
  }
  const int on = 1;
  setsockopt(socket_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  fcntl(socket_, F_SETFL, O_NONBLOCK);
  begin_ = end_ = 0;
  return 1;
}

size_t WiFiClient::write(const uint8_t *from, size_t len) {
  size_t done = 0;
  while (socket_ >= 0 && done < len) {
    const ssize_t sent = send(socket_, from + done, len - done, MSG_NOSIGNAL);
    if (sent > 0) {
      done += static_cast<size_t>(sent);
      continue;
    }
    pollfd ready = {socket_, POLLOUT, 0};
    if (sent < 0 && errno == EAGAIN && poll(&ready, 1, 2000) > 0) continue;
    return done;
  }
  return done;
}

void WiFiClient::fill() {
  if (begin_ < end_ || socket_ < 0) return;
  const ssize_t got = recv(socket_, buffer_, sizeof buffer_, 0);
  begin_ = end_ = 0;
  if (got > 0) end_ = static_cast<size_t>(got);
  if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) stop();
}
int WiFiClient::available() {
  fill();
  return static_cast<int>(end_ - begin_);
}
int WiFiClient::read() {
  fill();
  return begin_ < end_ ? buffer_[begin_++] : -1;
}
void WiFiClient::stop() {
  if (socket_ >= 0) close(socket_);
  socket_ = -1;
  begin_ = end_ = 0;
}
uint8_t WiFiClient::connected() {
  fill();
  return socket_ >= 0 || begin_ < end_;
}

int main(int, char **argv) {
  arguments = argv;
  et_host_attach_all();
  if (getenv("ET_QUIT_AT_END")) {
    pollfd first = {0, POLLIN, 0};
    poll(&first, 1, 1000);
    take_input();
  }
  setup();
  for (;;) {
    take_input();
    loop();
  }
}
