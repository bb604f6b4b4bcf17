#pragma once
#include "et_emulated.h"
namespace emulated {

class Dht11 : public Part {
 public:
  Dht11() : measured_(false), temperature_(0), humidity_(0) {}
  int answer(uint8_t *spans) override {
    if (!measured_) return 0;  // Nothing is measured yet: no answer, as from a sensor that starts.
    const int cold = temperature_ < 0, tenths = cold ? -temperature_ : temperature_;
    const uint8_t bytes[4] = {static_cast<uint8_t>(humidity_ / 10), static_cast<uint8_t>(humidity_ % 10),
                              static_cast<uint8_t>(tenths / 10),
                              static_cast<uint8_t>(tenths % 10 | (cold ? 0x80 : 0))};
    return frame(bytes, spans);
  }

 protected:
  void measure(const char *quantity, double value) override {
    measured_ = true;
    (*quantity == 't' ? temperature_ : humidity_) = rounded(value * 10);
  }

 private:
  bool measured_;
  int temperature_, humidity_;
};

}  // namespace emulated
