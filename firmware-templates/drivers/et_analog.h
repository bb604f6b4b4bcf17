// Sensors with a voltage: a few lines each, in whole numbers.
#pragma once
#include "et_driver.h"

namespace et {

// A voltage that is proportional to the value: the mean of `burst` readings, times a factor in
// 1/65536 of the property's smallest step, plus an offset in steps.
class Linear : public Paced {
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
class Curve : public Paced {
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
class Swing : public Paced {
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

}  // namespace et
