// Analog temperature sensor, 10 mV per degree.
#pragma once
#include "et_analog.h"
namespace et { namespace parts {
typedef Linear Lm35;
} }
