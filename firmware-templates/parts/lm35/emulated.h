#pragma once
#include "et_emulated.h"
namespace emulated {

class Lm35 : public Single {
 public:
  double millivolts(double) override { return value_ * 10; }
};

}  // namespace emulated
