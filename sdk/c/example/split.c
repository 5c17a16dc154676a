/*
 * split: sends HTTPS of the programs under /usr/bin to a local proxy, but for
 * networks on a list.
 *
 * Configuration: "proxy PORT PID" on the first line, then a network such as
 * 198.51.100.0/24 on each line.
 */
#include "callout.h"

static uint32_t nets[256], masks[256], count; /* networks */
static uint32_t proxy_port, proxy_pid;

/* Reads the next number up to max, after anything that is no digit. */
static bool number(const uint8_t **p, const uint8_t *end, uint32_t max, uint32_t *out) {
    while (*p < end && (**p < '0' || **p > '9'))
        ++*p;
    if (*p == end)
        return false;
    for (*out = 0; *p < end && **p >= '0' && **p <= '9'; ++*p) {
        if (*out > max / 10)
            return false;
        *out = *out * 10 + (**p - '0');
    }
    return *out <= max;
}

const char *callout_configure(const uint8_t *config, uint32_t len) {
    const uint8_t *p = config, *end = config + len;
    if (!number(&p, end, 65535, &proxy_port) || !number(&p, end, 0x7fffffff, &proxy_pid) || !proxy_pid)
        return "the first line is not: proxy PORT PID";
    for (count = 0; count < 256; count++) {
        uint32_t part, bits, net = 0;
        if (!number(&p, end, 255, &part))
            return p == end ? NULL : "a number of a network is over 255";
        net = part;
        for (int i = 0; i < 3; i++) {
            if (!number(&p, end, 255, &part))
                return "a network is not like 198.51.100.0/24";
            net = net << 8 | part;
        }
        if (!number(&p, end, 32, &bits))
            return "a network is not like 198.51.100.0/24";
        masks[count] = bits ? ~(uint32_t)0 << (32 - bits) : 0;
        nets[count] = net & masks[count];
    }
    return "more than 255 networks";
}

/* All networks are looked at: with -msimd128 four at once. */
static bool listed(uint32_t address) {
    uint32_t found = 0;
    for (uint32_t i = 0; i < count; i++)
        found |= (address & masks[i]) == nets[i];
    return found;
}

/* What is to be known when the proxy's own connection is decided. */
static uint8_t record[48] = {'S', 'P', 'L', '1'};

static void remember(const callout_call *call) {
    __builtin_memcpy(record + 4, call->remote, 16);
    callout_put16(record + 20, call->remote_port);
    record[22] = call->protocol;
    record[23] = call->ip_version;
    callout_put32(record + 24, call->pid);
    callout_put64(record + 40, call->connection);
}

callout_verdict callout_decide(const callout_call *call) {
    if (call->state == CALLOUT_STATE_REDIRECTED_BY_SELF || call->state == CALLOUT_STATE_PREVIOUSLY_REDIRECTED_BY_SELF)
        return callout_with_reason(callout_permit(), "the proxy's own connection");
    uint32_t to = callout_v4(call->remote); /* ::ffff:a.b.c.d of a dual-stack socket is IPv4 too */
    if (call->protocol != 6 || !to || call->remote_port != 443 || !callout_begins(call->app, "/usr/bin/") || listed(to))
        return callout_permit();
    remember(call);
    return callout_with_record(callout_redirect4(127, 0, 0, 1, (uint16_t)proxy_port, proxy_pid), record, sizeof record);
}
