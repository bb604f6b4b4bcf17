#pragma once
#include <math.h>
#include "et_emulated.h"
namespace emulated {

class Ntc : public Single {
 public:
  double millivolts(double supply) override {
    const double ohms = 10000 * exp(3950 * (1 / (value_ + 273.15) - 1 / 298.15));
    return supply * 10000 / (10000 + ohms);
  }
};

}  // namespace emulated
