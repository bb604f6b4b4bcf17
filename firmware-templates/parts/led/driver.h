// LED, on or off, or dimmed.
#pragma once
#include "et_digital.h"
namespace et { namespace parts {
typedef Switch LedSwitch;
typedef Dimmer LedDimmer;
} }
