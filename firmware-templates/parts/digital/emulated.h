#pragma once
#include "et_emulated.h"
namespace emulated {

class Digital : public Single {
 public:
  bool level() override { return value_ != 0; }
};

}  // namespace emulated
