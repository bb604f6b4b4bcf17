// Anything that is high or low: a contact, a PIR.
#pragma once
#include "et_digital.h"
namespace et { namespace parts {
typedef Level Digital;
} }
