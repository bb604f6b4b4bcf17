// Sensor drivers: a few lines each, in whole numbers. A driver keeps its last value for the
// sensor's own period, so that programs may ask as often as they like.
#pragma once
#include <Arduino.h>
#include "et_line.h"

namespace et {

// Reads when the period is over, and otherwise repeats.
class Paced {
 public:
  explicit Paced(uint16_t period) : period_(period), read_(false), at_(0) {}

 protected:
  bool due(uint32_t now) {
    if (read_ && now - at_ < period_) return false;
    read_ = true;
    at_ = now;
    return true;
  }

 private:
  uint16_t period_;
  bool read_;
  uint32_t at_;
};

// A voltage that is proportional to the value: the mean of `burst` readings, times a factor in
// 1/65536 of the property's smallest step, plus an offset in steps.
class Linear : Paced {
 public:
  Linear(uint8_t pin, uint8_t burst, int32_t factor, value_t offset, uint16_t period)
      : Paced(period), pin_(pin), burst_(burst), factor_(factor), offset_(offset), last_(NONE) {}
  value_t read(uint32_t now) {
    if (!due(now)) return last_;
    uint32_t sum = 0;
    for (uint8_t i = 0; i < burst_; i++) sum += static_cast<uint32_t>(analogRead(pin_));
    const int64_t scaled = static_cast<int64_t>(sum) * factor_ / burst_;
    last_ = static_cast<value_t>((scaled + 32768) >> 16) + offset_;
    return last_;
  }

 private:
  uint8_t pin_, burst_;
  int32_t factor_;
  value_t offset_, last_;
};

// Any other curve: values at seventeen voltages, straight lines between.
class Curve : Paced {
 public:
  Curve(uint8_t pin, uint8_t burst, uint8_t bits, const value_t *points_in_flash, uint16_t period)
      : Paced(period), pin_(pin), burst_(burst), bits_(bits), points_(points_in_flash), last_(NONE) {}
  value_t read(uint32_t now) {
    if (!due(now)) return last_;
    uint32_t sum = 0;
    for (uint8_t i = 0; i < burst_; i++) sum += static_cast<uint32_t>(analogRead(pin_));
    const uint16_t raw = static_cast<uint16_t>(sum / burst_);
    const uint8_t shift = static_cast<uint8_t>(bits_ - 4);
    const uint8_t at = static_cast<uint8_t>(raw >> shift);
    const int32_t part = raw & ((1u << shift) - 1);
    value_t pair[2];
    et_flash_copy(pair, points_ + at, sizeof pair);
    const int64_t rise = static_cast<int64_t>(pair[1] - pair[0]) * part;
    last_ = pair[0] + static_cast<value_t>(rise / (1L << shift));
    return last_;
  }

 private:
  uint8_t pin_, burst_, bits_;
  const value_t *points_;
  value_t last_;
};

// Loudness: a single sample of a sound says nothing, so the swing of a burst does, in decibels.
class Swing : Paced {
 public:
  Swing(uint8_t pin, uint8_t burst, value_t per_octave, value_t at_one, uint16_t period)
      : Paced(period), pin_(pin), burst_(burst), per_octave_(per_octave), at_one_(at_one), last_(NONE) {}
  value_t read(uint32_t now) {
    if (!due(now)) return last_;
    uint16_t least = 0xFFFF, most = 0;
    for (uint8_t i = 0; i < burst_; i++) {
      const uint16_t raw = static_cast<uint16_t>(analogRead(pin_));
      if (raw < least) least = raw;
      if (raw > most) most = raw;
    }
    uint32_t swing = static_cast<uint32_t>(most - least) << 8;
    if (swing < 256) swing = 256;
    // The logarithm to the base 2 in 1/256: whole octaves, and a straight line within one.
    int32_t octaves = 0;
    while (swing >= 512) {
      swing >>= 1;
      octaves += 256;
    }
    octaves += static_cast<int32_t>(swing - 256);
    last_ = at_one_ + static_cast<value_t>((static_cast<int64_t>(octaves) * per_octave_) / 256);
    return last_;
  }

 private:
  uint8_t pin_, burst_;
  value_t per_octave_, at_one_, last_;
};

// High or low.
class Level : Paced {
 public:
  explicit Level(uint8_t pin) : Paced(0), pin_(pin) { pinMode(pin, INPUT); }
  value_t read(uint32_t) { return digitalRead(pin_) == HIGH; }

 private:
  uint8_t pin_;
};

// DHT11 and DHT22: 40 bits, each a low of 50 µs and a high of 26 or 70 µs. A frame takes 4 ms
// after a start of 18 ms (DHT22: 2 ms); a frame that does not come through is tried again next
// time, and after three of them there is no value.
class Dht : Paced {
 public:
  Dht(uint8_t pin, bool wide, uint16_t period)
      : Paced(period), pin_(pin), wide_(wide), misses_(0), temperature_(NONE), humidity_(NONE) {}
  // In 0.1 °C and 0.1 %.
  value_t temperature(uint32_t now) {
    update(now);
    return temperature_;
  }
  value_t humidity(uint32_t now) {
    update(now);
    return humidity_;
  }

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
    delay(wide_ ? 2 : 18);
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
  void update(uint32_t now) {
    if (!due(now)) return;
    uint8_t bytes[5] = {0, 0, 0, 0, 0};
    if (!frame(bytes)) {
      if (misses_ < 3 && ++misses_ == 3) temperature_ = humidity_ = NONE;
      return;
    }
    misses_ = 0;
    if (wide_) {
      humidity_ = bytes[0] << 8 | bytes[1];
      temperature_ = (bytes[2] & 0x7F) << 8 | bytes[3];
      if (bytes[2] & 0x80) temperature_ = -temperature_;
    } else {
      humidity_ = bytes[0] * 10 + bytes[1];
      temperature_ = bytes[2] * 10 + (bytes[3] & 0x7F);
      if (bytes[3] & 0x80) temperature_ = -temperature_;
    }
  }

  uint8_t pin_;
  bool wide_;
  uint8_t misses_;
  value_t temperature_, humidity_;
};

// A value of a part in tenths, in the property's steps: factor in 1/65536, offset in steps.
inline value_t calibrated(value_t tenths, int32_t factor, value_t offset) {
  if (tenths == NONE) return NONE;
  return static_cast<value_t>((static_cast<int64_t>(tenths) * factor + 32768) >> 16) + offset;
}

}  // namespace et
