// Ambient light sensor, in its continuous high resolution mode: 16 bits every 120 ms, 180 ms at most.
#pragma once
#include "et_i2c.h"
namespace et { namespace parts {

class Bh1750 : public OnBus {
 public:
  Bh1750(uint8_t address, uint16_t period) : OnBus(address, period), started_(0), last_(NONE), state_(OFF) {}
  void begin() {
    start(0);
    if (state_ != OFF) delay(FIRST_MS);
    started_ -= FIRST_MS;
  }
  // In counts.
  value_t light(uint32_t now) {
    if (!due(now)) return last_;
    if (state_ != OFF && now - started_ < FIRST_MS) return last_;
    uint8_t bytes[2];
    if (state_ == OFF || !i2c::read(address_, bytes, 2)) {
      if (state_ == OFF || missed()) {
        last_ = NONE;
        start(now);
      }
      return last_;
    }
    answered();
    const value_t counts = static_cast<value_t>(static_cast<uint16_t>(bytes[0] << 8 | bytes[1]));
    // A part that lost its supply for a moment is off and reads 0: it is started again, and 0 is true if
    // it is read once more.
    if (!counts && state_ != DARK) {
      start(now);
      if (state_ != OFF) state_ = DARK;
      return last_;
    }
    if (counts) state_ = ON;
    last_ = counts;
    return last_;
  }

 private:
  enum State : uint8_t { OFF, ON, DARK };
  static const uint16_t FIRST_MS = 180;

  void start(uint32_t now) {
    const uint8_t on = 0x01, continuous = 0x10;
    state_ = i2c::write(address_, &on, 1) && i2c::write(address_, &continuous, 1) ? ON : OFF;
    started_ = now;
  }

  uint32_t started_;
  value_t last_;
  State state_;
};

} }
