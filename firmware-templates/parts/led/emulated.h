#pragma once
#include "et_emulated.h"
namespace emulated {

// It has no answer: the board prints what is done to its pin.
class Led : public Part {};

}  // namespace emulated
