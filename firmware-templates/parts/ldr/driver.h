// Photoresistor (GL5528) from the supply to the pin, and 10 kOhm from there to ground.
#pragma once
#include "et_analog.h"
namespace et { namespace parts {
typedef Curve Ldr;
} }
