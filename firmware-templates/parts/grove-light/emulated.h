#pragma once
#include "et_emulated.h"
namespace emulated {

class GroveLight : public Single {
 public:
  double millivolts(double) override { return value_ / 0.4; }
};

}  // namespace emulated
