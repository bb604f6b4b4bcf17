// Thermistor of 10 kOhm at 25 °C, from the supply to the pin, and 10 kOhm from there to ground.
#pragma once
#include "et_analog.h"
namespace et { namespace parts {
typedef Curve Ntc;
} }
