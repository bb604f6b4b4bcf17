// Grove loudness sensor. The level is typical; calibrate it.
#pragma once
#include "et_analog.h"
namespace et { namespace parts {
typedef Swing GroveLoudness;
} }
