// The sketch on its board: sensors, actuators, permanent memory, watchdog, link.
#include <Arduino.h>
#include <EEPROM.h>
#include "et_core.h"
#include "et_parts.h"
#if ET_LINK_SERIAL
#include "et_serial.h"
#else
#include <WiFi.h>
#include "et_mqtt.h"
#include "secrets.h"
#endif
#ifdef __AVR__
#include <avr/sleep.h>
#include <avr/wdt.h>
#endif

namespace {

ET_CURVES
ET_PARTS

#ifdef __AVR__
const uint16_t ASKED = 0x5EAF;
uint8_t reset_flags __attribute__((section(".noinit")));
uint16_t reset_asked __attribute__((section(".noinit")));
#endif

#if ET_LINK_SERIAL
typedef et::SerialLink Link;
#else
typedef et::MqttLink Link;
#endif

// What is the same for both links.
class Board : public Link {
 public:
#if ET_LINK_SERIAL
  Board() {}
#else
  explicit Board(Client &client) : Link(client) {}
#endif

  et::value_t read(uint8_t property, uint32_t now) override {
    (void)now;
#ifdef ET_HOST
    et::value_t given;
    if (et_host_value(property, given)) return given;
#endif
    switch (property) { ET_READS }
    return et::NONE;
  }
  void actuate(uint8_t property, et::value_t value) override {
    (void)value;
    switch (property) { ET_ACTUATES }
  }
  void load(uint16_t at, void *to, uint8_t len) override {
    for (uint8_t i = 0; i < len; i++) static_cast<uint8_t *>(to)[i] = EEPROM.read(at + i);
  }
  void save(uint16_t at, const void *from, uint8_t len) override {
    for (uint8_t i = 0; i < len; i++) {
      const uint8_t byte = static_cast<const uint8_t *>(from)[i];
      if (EEPROM.read(at + i) != byte) EEPROM.write(at + i, byte);
    }
#ifndef __AVR__
    EEPROM.commit();
#endif
  }
  void restart() override {
#ifdef __AVR__
    Serial.flush();
    reset_asked = ASKED;
    wdt_enable(WDTO_15MS);
    for (;;) {
    }
#else
    ESP.restart();
#endif
  }
#if !ET_LINK_SERIAL
  bool radio(const char *ssid) override;
#endif
#if ET_RSSI
  int16_t rssi() override { return WiFi.RSSI(); }
#endif
#ifdef ET_BATTERY
  uint8_t battery(uint32_t now) override {
    (void)now;
#ifdef ET_HOST
    uint8_t given;
    if (et_host_battery(given)) return given;
#endif
    const et::value_t percent = ET_BATTERY;
    return percent < 0 ? 0 : percent > 100 ? 100 : static_cast<uint8_t>(percent);
  }
#endif
};

#if ET_LINK_SERIAL
Board board;
#else
struct Network { const char *ssid, *password; };
const Network networks[] = ET_NETWORKS;
const uint8_t NETWORKS = sizeof networks / sizeof networks[0];
const uint32_t JOIN_MS = 30000;

WiFiClient client;
Board board(client);
uint8_t network = 0, network_before = 0;
bool network_new = true, network_trial = false;
uint32_t network_since = 0;

// The answer leaves first; the change comes with the next turn. Without the broker on the new
// network the old one comes back.
bool Board::radio(const char *ssid) {
  for (uint8_t i = 0; i < NETWORKS; i++) {
    if (strcmp(networks[i].ssid, ssid)) continue;
    if (i == network) return true;
    network_before = network;
    network = i;
    network_new = network_trial = true;
    return true;
  }
  return false;
}

void radio_turn(uint32_t now) {
  if (network_new) {
    network_new = false;
    network_since = now;
    board.drop();
    WiFi.disconnect();
    WiFi.begin(networks[network].ssid, networks[network].password);
  }
  if (board.up()) {
    network_trial = false;
    network_since = now;
  } else if (now - network_since > JOIN_MS) {
    // Back, or the next one that is known.
    network = network_trial ? network_before : static_cast<uint8_t>((network + 1) % NETWORKS);
    network_trial = false;
    network_new = NETWORKS > 1;
    network_since = now;
  }
}
#endif

et::Node node(board);

et::Cause cause() {
#ifdef __AVR__
  if (reset_asked == ASKED) {
    reset_asked = 0;
    return et::CAUSE_RESET;
  }
  if (reset_flags & _BV(WDRF)) return et::CAUSE_WATCHDOG;
  if (reset_flags & _BV(BORF) && !(reset_flags & _BV(PORF))) return et::CAUSE_BROWNOUT;
  if (reset_flags & _BV(PORF)) return et::CAUSE_POWER;
  return et::CAUSE_RESET;
#else
  switch (esp_reset_reason()) {
    case ESP_RST_POWERON: return et::CAUSE_POWER;
    case ESP_RST_BROWNOUT: return et::CAUSE_BROWNOUT;
    case ESP_RST_TASK_WDT:
    case ESP_RST_INT_WDT:
    case ESP_RST_WDT: return et::CAUSE_WATCHDOG;
    default: return et::CAUSE_RESET;
  }
#endif
}

}  // namespace

#ifdef __AVR__
// After a reset by the watchdog it stays on at 16 ms: stop it before anything else takes longer.
// Loaders that clear the cause leave it in r2.
void et_first(void) __attribute__((naked, used, section(".init3")));
void et_first(void) {
  __asm__ __volatile__(
      "in r24, %[mcusr]\n\t"
      "tst r24\n\t"
      "brne 1f\n\t"
      "mov r24, r2\n"
      "1: sts %[flags], r24\n\t"
      "out %[mcusr], __zero_reg__\n\t"
      "ldi r24, %[change]\n\t"
      "sts %[wdtcsr], r24\n\t"
      "sts %[wdtcsr], __zero_reg__\n\t"
      :
      : [mcusr] "I"(_SFR_IO_ADDR(MCUSR)), [flags] "i"(&reset_flags), [change] "M"(_BV(WDCE) | _BV(WDE)),
        [wdtcsr] "n"(_SFR_MEM_ADDR(WDTCSR))
      : "r24", "memory");
}
#endif

void et_setup() {
#ifdef __AVR__
  wdt_enable(WDTO_2S);
#endif
  ET_BEGIN
#if ET_LINK_SERIAL
  Serial.begin(115200);
  Serial.write('\n');  // a reset may have cut a line: the next one stands alone
#else
  EEPROM.begin(1024);
  board.configure(ET_BROKER, ET_BROKER_PORT, ET_CLIENT_ID, ET_TOPIC_PREFIX, ET_USER, ET_PASSWORD);
  WiFi.mode(WIFI_STA);
#endif
  node.start(millis(), cause());
#ifndef __AVR__
  enableLoopWDT();
#endif
}

void et_loop() {
  const uint32_t now = millis();
#if ET_LINK_SERIAL
  board.receive(node, now);
#else
  radio_turn(now);
  board.poll(node, now, WiFi.status() == WL_CONNECTED);
#endif
  node.poll(now);
#ifdef __AVR__
  // Reached only if link, sensors and sending each came to an end.
  wdt_reset();
  // The timer of `millis` wakes it, every 1.024 ms.
  if (node.idle()) {
    set_sleep_mode(SLEEP_MODE_IDLE);
    sleep_mode();
  }
#else
  delay(1);
#endif
}
