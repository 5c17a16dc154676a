/* The decision of the peers' guests in C: that of sdk/c/example/split.c, on
 * inputs that each peer hands over in its own way. */
#include <stdbool.h>
#include <stdint.h>

#define EXPORT(name) __attribute__((export_name(#name)))
#define IMPORT(module, name) __attribute__((import_module(module), import_name(#name)))

struct request {
    uint8_t protocol, version;
    uint16_t port;
    uint8_t remote[16]; /* v4 as v4-mapped */
    uint32_t pid;
    uint64_t connection;
    const uint8_t *app;
    uint32_t app_len;
};

/* The configuration as the host writes it: the proxy, then networks. */
static struct {
    uint16_t port;
    uint32_t pid;
    uint32_t nets[256], masks[256], count;
} config;

static uint8_t record[48] = {'S', 'P', 'L', '1'};

static bool configure(const uint8_t *b, uint32_t len) {
    if (len < 8 || len > 8 + sizeof config.nets + sizeof config.masks)
        return false;
    __builtin_memcpy(&config.port, b, 2);
    __builtin_memcpy(&config.pid, b + 4, 4);
    config.count = (len - 8) / 8;
    for (uint32_t i = 0; i < config.count; i++) {
        __builtin_memcpy(&config.nets[i], b + 8 + 8 * i, 4);
        __builtin_memcpy(&config.masks[i], b + 12 + 8 * i, 4);
    }
    return true;
}

static bool listed(const uint8_t *remote) {
    uint32_t address, found = 0;
    __builtin_memcpy(&address, remote + 12, 4);
    address = __builtin_bswap32(address);
    for (uint32_t i = 0; i < config.count; i++)
        found |= (address & config.masks[i]) == config.nets[i];
    return found;
}

static bool begins(const uint8_t *text, uint32_t len, const char *prefix) {
    uint32_t i = 0;
    for (; prefix[i]; i++)
        if (i == len || text[i] != (uint8_t)prefix[i])
            return false;
    return true;
}

/* Reports whether to redirect; then record is what to remember. */
static bool decide(const struct request *q) {
    if (q->protocol != 6 || q->version != 4 || q->port != 443 || !begins(q->app, q->app_len, "/usr/bin/") || listed(q->remote))
        return false;
    __builtin_memcpy(record + 4, q->remote, 16);
    __builtin_memcpy(record + 20, &q->port, 2);
    record[22] = q->protocol;
    record[23] = q->version;
    __builtin_memcpy(record + 24, &q->pid, 4);
    __builtin_memcpy(record + 40, &q->connection, 8);
    return true;
}
