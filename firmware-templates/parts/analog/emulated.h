#pragma once
#include "et_emulated.h"
namespace emulated {

class Analog : public Single {
 public:
  double millivolts(double) override { return value_ * 1000; }
};

}  // namespace emulated
