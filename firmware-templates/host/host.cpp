// The board that is a process. Its inputs are lines on standard input, taken as they come:
//   analog PIN MILLIVOLTS     swing PIN MILLIVOLTS (from one reading to the next)
//   digital PIN 0|1           dht PIN TEMPERATURE HUMIDITY (tenths; `dht PIN off`: no answer)
//   value PROPERTY UNITS (by number and in fixed point, in place of its sensor)
//   battery PERCENT (in place of its pin)   rssi DBM (at the start what ET_RSSI says, else -60)
//   network SSID up|down      hang        quit
// With ET_QUIT_AT_END the process ends with its input, and waits for the first of it.
// and what it does with its outputs it says on standard output: `digital PIN LEVEL`, `duty PIN DUTY`.
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

void setup();
void loop();

EspClass ESP;
HardwareSerial Serial;
EEPROMClass EEPROM;
WiFiClass WiFi;

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

struct Dht {
  bool there, asked;
  int temperature, humidity;
  // While a frame is read, time is counted in calls: the waveform is the same on a busy machine.
  int at;
  uint8_t wave[90];
  int edges;
} dhts[PINS];
int dht_reading = -1;
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

void frame(int pin) {
  Dht &dht = dhts[pin];
  // Both kinds of sensor are answered in the form of a DHT22; ET_DHT11 asks for the other.
  uint8_t bytes[5];
  if (getenv("ET_DHT11")) {
    bytes[0] = static_cast<uint8_t>(dht.humidity / 10);
    bytes[1] = static_cast<uint8_t>(dht.humidity % 10);
    bytes[2] = static_cast<uint8_t>(abs(dht.temperature) / 10);
    bytes[3] = static_cast<uint8_t>(abs(dht.temperature) % 10 | (dht.temperature < 0 ? 0x80 : 0));
  } else {
    bytes[0] = static_cast<uint8_t>(dht.humidity >> 8);
    bytes[1] = static_cast<uint8_t>(dht.humidity);
    bytes[2] = static_cast<uint8_t>(abs(dht.temperature) >> 8 | (dht.temperature < 0 ? 0x80 : 0));
    bytes[3] = static_cast<uint8_t>(abs(dht.temperature));
  }
  bytes[4] = static_cast<uint8_t>(bytes[0] + bytes[1] + bytes[2] + bytes[3]);
  dht.edges = 0;
  dht.wave[dht.edges++] = 30;  // high, low, high, and then low and high for each bit
  dht.wave[dht.edges++] = 80;
  dht.wave[dht.edges++] = 80;
  for (int bit = 0; bit < 40; bit++) {
    dht.wave[dht.edges++] = 50;
    dht.wave[dht.edges++] = bytes[bit / 8] >> (7 - bit % 8) & 1 ? 70 : 26;
  }
  dht.wave[dht.edges++] = 50;
  dht.at = 0;
  counted_us = static_cast<unsigned long>(clock_us() - started_us);
  dht_reading = pin;
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
  if (!strcmp(word, "dht")) {
    dhts[pin].there = strcmp(text, "off") != 0;
    dhts[pin].temperature = a;
    dhts[pin].humidity = b;
  }
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
unsigned long micros() { return dht_reading >= 0 ? counted_us : static_cast<unsigned long>(clock_us() - started_us); }
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

void pinMode(uint8_t pin, uint8_t mode) {
  if (mode == OUTPUT) {
    dhts[pin].asked = true;
  } else if (dhts[pin].asked && dhts[pin].there) {
    dhts[pin].asked = false;
    frame(pin);
  }
}

int digitalRead(uint8_t pin) {
  if (dht_reading == pin) {
    Dht &dht = dhts[pin];
    counted_us++;
    // Starts high, and every edge turns it.
    if (dht.wave[dht.at] == 0 || --dht.wave[dht.at] == 0) dht.at++;
    if (dht.at >= dht.edges) dht_reading = -1;
    return dht.at % 2 == 0;
  }
  if (dhts[pin].there || dhts[pin].asked) return HIGH;
  return levels[pin];
}

void digitalWrite(uint8_t pin, uint8_t level) {
  if (!dhts[pin].asked && levels[pin] != level) printf("digital %d %d\n", pin, level);
  if (!dhts[pin].asked) levels[pin] = level;
  fflush(stdout);
}

void analogWrite(uint8_t pin, int duty) {
  printf("duty %d %d\n", pin, duty);
  fflush(stdout);
}

int analogRead(uint8_t pin) {
  int level = millivolts[pin];
  if (swings[pin]) {
    upward[pin] = !upward[pin];
    level += upward[pin] ? swings[pin] / 2 : -swings[pin] / 2;
  }
  const int raw = level * ADC_MAX / ADC_MILLIVOLTS;
  return raw < 0 ? 0 : raw > ADC_MAX ? ADC_MAX : raw;
}

int HardwareSerial::available() { return 0; }
int HardwareSerial::read() { return -1; }
size_t HardwareSerial::write(uint8_t byte) { return fwrite(&byte, 1, 1, stdout); }

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
