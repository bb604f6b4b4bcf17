// Relay, on or off.
#pragma once
#include "et_digital.h"
namespace et { namespace parts {
typedef Switch RelaySwitch;
} }
