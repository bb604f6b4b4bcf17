// Anything with a voltage, in volts.
#pragma once
#include "et_analog.h"
namespace et { namespace parts {
typedef Linear Analog;
} }
