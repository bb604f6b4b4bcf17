#pragma once
#include <math.h>
#include "et_emulated.h"
namespace emulated {

class Ldr : public Single {
 public:
  double millivolts(double supply) override {
    const double ohms = 15000 * pow(value_ / 10, -0.7);
    return supply * 10000 / (10000 + ohms);
  }
};

}  // namespace emulated
