#pragma once
#include <math.h>
#include "et_emulated.h"
namespace emulated {

// A sound: from one conversion to the next it swings around half of a volt.
class GroveLoudness : public Single {
 public:
  GroveLoudness() : high_(false) {}
  double millivolts(double) override {
    const double swing = pow(10, (value_ - 34) / 20);
    high_ = !high_;
    return 500 + (high_ ? swing / 2 : -swing / 2);
  }

 private:
  bool high_;
};

}  // namespace emulated
