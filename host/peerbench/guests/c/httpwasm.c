/* The guest of http-wasm: a connection comes as a request whose headers say
 * what it is, and goes on with headers that say where to. */
#include "decision.h"

#define HTTP(name) IMPORT("http_handler", name)
HTTP(get_config) uint32_t get_config(void *buf, uint32_t limit);
HTTP(get_header_values) uint64_t get_header_values(uint32_t kind, const void *name, uint32_t name_len, void *buf, uint32_t limit);
HTTP(set_header_value) void set_header_value(uint32_t kind, const void *name, uint32_t name_len, const void *value, uint32_t len);

static uint8_t buf[4096], app[4096];

/* A header that a connection does not have is empty. */
static uint32_t header(const char *name, uint32_t name_len, uint8_t *into) {
    uint64_t n = get_header_values(0, name, name_len, into, sizeof buf);
    if (n >> 32 == 0 || (uint32_t)n > sizeof buf)
        return 0;
    return (uint32_t)n - 1; /* without the zero byte */
}

static uint64_t number(const uint8_t *p, const uint8_t *end) {
    uint64_t n = 0;
    for (; p < end && *p >= '0' && *p <= '9'; p++)
        n = n * 10 + (*p - '0');
    return n;
}

/* Reads an address such as 198.51.100.7:443, as far as it is one. */
static void address(const uint8_t *p, const uint8_t *end, struct request *q) {
    __builtin_memset(q->remote, 0, 10);
    q->remote[10] = q->remote[11] = 0xff;
    q->version = 4;
    for (int i = 12; i < 16; i++) {
        q->remote[i] = (uint8_t)number(p, end);
        while (p < end && *p != '.' && *p != ':')
            p++;
        if (p < end)
            p++;
    }
    q->port = (uint16_t)number(p, end);
}

EXPORT(handle_request) uint64_t handle_request(void) {
    if (!config.count && (get_config(buf, sizeof buf) > sizeof buf || !configure(buf, get_config(buf, sizeof buf))))
        return 0;
    struct request q;
    q.protocol = header("Protocol", 8, buf) == 3 && buf[0] == 't' ? 6 : 17;
    address(buf, buf + header("Remote", 6, buf), &q);
    q.app = app;
    q.app_len = header("App", 3, app);
    q.pid = (uint32_t)number(buf, buf + header("Pid", 3, buf));
    q.connection = number(buf, buf + header("Connection-Id", 13, buf));
    if (decide(&q))
        set_header_value(0, "Record", 6, record, sizeof record);
    return 1;
}

EXPORT(handle_response) void handle_response(uint32_t context, uint32_t error) {
    (void)context;
    (void)error;
}
