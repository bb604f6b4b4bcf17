// Parts on a pin that is high or low.
#pragma once
#include "et_driver.h"

namespace et {

// High or low.
class Level {
 public:
  explicit Level(uint8_t pin) : pin_(pin) {}
  void begin() { pinMode(pin_, INPUT); }
  value_t read(uint32_t) { return digitalRead(pin_) == HIGH; }

 private:
  uint8_t pin_;
};

// On or off.
class Switch {
 public:
  explicit Switch(uint8_t pin) : pin_(pin) {}
  void begin() { pinMode(pin_, OUTPUT); }
  void set(value_t value) { digitalWrite(pin_, value ? HIGH : LOW); }

 private:
  uint8_t pin_;
};

// A duty cycle: none at `least`, all of it `span` above.
class Dimmer {
 public:
  Dimmer(uint8_t pin, value_t least, uint32_t span) : pin_(pin), least_(least), span_(span) {}
  void begin() { pinMode(pin_, OUTPUT); }
  void set(value_t value) {
    const uint32_t above = static_cast<uint32_t>(value) - static_cast<uint32_t>(least_);
    analogWrite(pin_, static_cast<int>(static_cast<uint64_t>(above) * 255 / span_));
  }

 private:
  uint8_t pin_;
  value_t least_;
  uint32_t span_;
};

// Temperature and humidity in frames of 40 bits on one wire: each bit is a low of 50 µs and a high of
// 26 or 70 µs. A frame takes 4 ms after the start pulse. A frame that does not come through is tried
// again next time, and after three of them there is no value.
class SingleWire : public Paced {
 public:
  SingleWire(uint8_t pin, uint8_t start_ms, uint16_t period)
      : Paced(period), temperature_(NONE), humidity_(NONE), pin_(pin), start_ms_(start_ms), misses_(0) {}

 protected:
  // Whether a new frame came.
  bool receive(uint32_t now, uint8_t *bytes) {
    if (!due(now)) return false;
    memset(bytes, 0, 5);
    if (frame(bytes)) {
      misses_ = 0;
      return true;
    }
    if (misses_ < 3 && ++misses_ == 3) temperature_ = humidity_ = NONE;
    return false;
  }

  value_t temperature_, humidity_;

 private:
  // Waits while the line has this level; the µs that it took, 0 if too long.
  uint16_t span(uint8_t level, uint16_t limit) {
    const uint32_t from = micros();
    while (digitalRead(pin_) == level) {
      if (micros() - from > limit) return 0;
    }
    return static_cast<uint16_t>(micros() - from + 1);
  }
  bool frame(uint8_t *bytes) {
    pinMode(pin_, OUTPUT);
    digitalWrite(pin_, LOW);
    delay(start_ms_);
    digitalWrite(pin_, HIGH);
    pinMode(pin_, INPUT_PULLUP);
    if (!span(HIGH, 200) || !span(LOW, 200) || !span(HIGH, 200)) return false;
    for (uint8_t i = 0; i < 40; i++) {
      if (!span(LOW, 150)) return false;
      const uint16_t high = span(HIGH, 150);
      if (!high) return false;
      bytes[i >> 3] = static_cast<uint8_t>(bytes[i >> 3] << 1 | (high > 48));
    }
    return static_cast<uint8_t>(bytes[0] + bytes[1] + bytes[2] + bytes[3]) == bytes[4];
  }

  uint8_t pin_, start_ms_, misses_;
};

}  // namespace et
