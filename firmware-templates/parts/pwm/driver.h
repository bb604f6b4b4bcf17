// Anything that takes a duty cycle.
#pragma once
#include "et_digital.h"
namespace et { namespace parts {
typedef Switch PwmSwitch;
typedef Dimmer PwmDimmer;
} }
