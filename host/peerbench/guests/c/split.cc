// The decision in C++, with the SDK's header.
#include "callout.h"

namespace {

struct Policy {
    uint32_t nets[256], masks[256], count;
    uint16_t port;
    uint32_t pid;

    bool listed(uint32_t address) const {
        uint32_t found = 0;
        for (uint32_t i = 0; i < count; i++)
            found |= (address & masks[i]) == nets[i];
        return found;
    }
} policy;

uint8_t record[48] = {'S', 'P', 'L', '1'};

void remember(const callout_call &call) {
    __builtin_memcpy(record + 4, call.remote, 16);
    callout_put16(record + 20, call.remote_port);
    record[22] = call.protocol;
    record[23] = call.ip_version;
    callout_put32(record + 24, call.pid);
    callout_put64(record + 40, call.connection);
}

} // namespace

const char *callout_configure(const uint8_t *config, uint32_t len) {
    if (len < 8 || len > 8 + sizeof policy.nets + sizeof policy.masks)
        return "the configuration is not: port, process, networks";
    policy.port = callout_get16(config);
    policy.pid = callout_get32(config + 4);
    policy.count = (len - 8) / 8;
    for (uint32_t i = 0; i < policy.count; i++) {
        policy.nets[i] = callout_get32(config + 8 + 8 * i);
        policy.masks[i] = callout_get32(config + 12 + 8 * i);
    }
    return nullptr;
}

callout_verdict callout_decide(const callout_call *call) {
    if (call->protocol != 6 || call->ip_version != 4 || call->remote_port != 443 || !callout_begins(call->app, "/usr/bin/") ||
        policy.listed(callout_v4(call->remote)))
        return callout_permit();
    remember(*call);
    return callout_with_record(callout_redirect4(127, 0, 0, 1, policy.port, policy.pid), record, sizeof record);
}
