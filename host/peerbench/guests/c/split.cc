// The decision in C++, with the SDK's header.
#include "callout.h"

namespace {

struct Network {
    uint32_t address, mask;
};

struct Policy {
    Network networks[256];
    uint32_t count;
    uint16_t port;
    uint32_t pid;

    bool listed(uint32_t address) const {
        for (uint32_t i = 0; i < count; i++)
            if ((address & networks[i].mask) == networks[i].address)
                return true;
        return false;
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
    if (len < 8 || len > 8 + sizeof policy.networks)
        return "the configuration is not: port, process, networks";
    policy.port = callout_get16(config);
    policy.pid = callout_get32(config + 4);
    __builtin_memcpy(policy.networks, config + 8, len - 8);
    policy.count = (len - 8) / 8;
    return nullptr;
}

callout_verdict callout_decide(const callout_call *call) {
    if (call->protocol != 6 || call->ip_version != 4 || call->remote_port != 443 || !callout_begins(call->app, "/usr/bin/") ||
        policy.listed(callout_v4(call->remote)))
        return callout_permit();
    remember(*call);
    return callout_with_record(callout_redirect4(127, 0, 0, 1, policy.port, policy.pid), record, sizeof record);
}
