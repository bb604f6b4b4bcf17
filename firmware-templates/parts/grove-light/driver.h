// Grove light sensor. The factor is typical; calibrate it.
#pragma once
#include "et_analog.h"
namespace et { namespace parts {
typedef Linear GroveLight;
} }
