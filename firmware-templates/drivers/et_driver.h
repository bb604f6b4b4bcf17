// What the drivers of parts have in common. A part's own C++ is `driver.h` in its folder: a class in
// `et::parts` whose name is the part's in CamelCase.
//
// A sensor's class has `begin()`, which `setup` calls once, and `read(now)`, or a method with the name
// of each quantity. They return whole numbers, and `NONE` while the part does not answer. They never
// wait for longer than 25 ms. An actuator's classes end with `Switch` and `Dimmer`; they have `begin()`
// and `set(value)`.
#pragma once
#include <Arduino.h>
#include "et_line.h"

namespace et {

// A driver keeps its last value for the part's period, so that programs may ask as often as they like.
class Paced {
 public:
  explicit Paced(uint16_t period) : period_(period), read_(false), at_(0) {}
  void begin() {}

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

// The counts of a part, in the property's steps: factor in 1/65536, offset in steps.
inline value_t calibrated(value_t counts, int32_t factor, value_t offset) {
  if (counts == NONE) return NONE;
  return static_cast<value_t>((static_cast<int64_t>(counts) * factor + 32768) >> 16) + offset;
}

}  // namespace et
