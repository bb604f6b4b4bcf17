#pragma once
#include <stdlib.h>

// A process takes them from its environment.
const char *et_host_setting(const char *name, const char *otherwise);

#define ET_NETWORKS {{"lab", ""}, {"spare", ""}}
#define ET_BROKER et_host_setting("ET_BROKER", "127.0.0.1")
#define ET_BROKER_PORT static_cast<uint16_t>(atoi(et_host_setting("ET_BROKER_PORT", "1883")))
#define ET_USER et_host_setting("ET_USER", "")
#define ET_PASSWORD et_host_setting("ET_PASSWORD", "")
#define ET_CLIENT_ID et_host_setting("ET_CLIENT_ID", "host-node")
#define ET_TOPIC_PREFIX et_host_setting("ET_TOPIC_PREFIX", "et/v1/lab/host-node/")
