/*
 * sni-router: connections go where the name that they ask for is routed. See
 * README.md for the configuration.
 *
 * A connection goes to a proxy that looks at whom it asks for. When that proxy
 * connects, the callout is asked again, with the name and its own record: it
 * sends the connection on to the proxy of the name's route, lets it pass or
 * blocks it.
 */
#include "callout_json.h"

enum { PEEKED = 1, ROUTED = 2 }; /* what the record says was done last */
enum { PERMIT, BLOCK, PROXY };   /* what a route does */

#define MAX_ROUTES 64
#define MAX_NAMES 256
#define MAX_NAME 256
#define REDIRECTED 0x00100000 /* FWP_CONDITION_FLAG_IS_CONNECTION_REDIRECTED */

typedef struct {
    uint32_t address, pid;
    uint16_t port;
} target;

typedef struct {
    target to;
    uint8_t action;
} route;

static struct {
    char text[MAX_NAME];
    uint32_t len, route;
} names[MAX_NAMES];
static route routes[MAX_ROUTES];
static uint32_t name_count, route_count;
static target peek;
static uint8_t otherwise;

/* Texts that are put together: a reason of a block or a refusal. */
static char said[512];
static uint32_t said_len;

static void say(const char *s) {
    for (; *s && said_len < sizeof said - 1; s++)
        said[said_len++] = *s;
    said[said_len] = 0;
}

static void say_number(uint32_t n) {
    char digits[11];
    uint32_t at = sizeof digits - 1;
    digits[at] = 0;
    do
        digits[--at] = (char)('0' + n % 10);
    while (n /= 10);
    say(digits + at);
}

/* Begins a text: routes[3].names[2], as far as there are numbers. */
static void say_place(const char *key, int32_t of_route, int32_t of_name) {
    said_len = 0;
    if (of_route >= 0) {
        say("routes[");
        say_number((uint32_t)of_route);
        say(key[0] ? "]." : "]");
    }
    say(key);
    if (of_name >= 0) {
        say("[");
        say_number((uint32_t)of_name);
        say("]");
    }
}

static bool same(const char *a, const char *b) {
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

/* The reader of the configuration: what is wrong, and the route that is read. */
typedef struct {
    callout_json json;
    const char *why;
    int32_t route;
} reader;

static bool refuse(reader *r, const char *key, int32_t of_name, const char *what) {
    if (!r->why) {
        say_place(key, r->route, of_name);
        say(what);
        r->why = said;
    }
    return callout_json_fail(&r->json);
}

static bool digits(const char **s, uint32_t max, char end, uint32_t *out) {
    const char *from = *s;
    for (*out = 0; **s >= '0' && **s <= '9' && *s - from < 5; ++*s)
        *out = *out * 10 + (uint32_t)(**s - '0');
    return *s > from && *out <= max && *(*s)++ == end;
}

static bool read_proxy(reader *r, const char *key, target *to) {
    char text[64];
    uint32_t part, port;
    const char *s = text;
    if (!callout_json_text(&r->json, text, sizeof text))
        return refuse(r, key, -1, ": expected an address and a port");
    to->address = 0;
    for (int i = 0; i < 4; i++) {
        if (!digits(&s, 255, i < 3 ? '.' : ':', &part))
            return refuse(r, key, -1, ": no IPv4 address and port");
        to->address = to->address << 8 | part;
    }
    if (!digits(&s, 65535, 0, &port) || !port)
        return refuse(r, key, -1, ": no IPv4 address and port");
    to->port = (uint16_t)port;
    return true;
}

static bool read_pid(reader *r, const char *key, target *to) {
    return (callout_json_number(&r->json, 0x7fffffff, &to->pid) && to->pid) || refuse(r, key, -1, ": expected the proxy's process, ${pid}");
}

static bool read_action(reader *r, const char *key, uint8_t *action) {
    char text[16];
    bool ok = callout_json_text(&r->json, text, sizeof text);
    if (!ok || (!same(text, "permit") && !same(text, "block")))
        return refuse(r, key, -1, ": expected permit or block");
    *action = same(text, "block") ? BLOCK : PERMIT;
    return true;
}

/* A name in lower case; *. begins one that stands for all names below it, and * is
 * every name. */
static bool read_name(reader *r, int32_t i) {
    if (name_count == MAX_NAMES)
        return refuse(r, "names", -1, ": more than 256 of all routes together");
    char *s = names[name_count].text;
    if (!callout_json_text(&r->json, s, MAX_NAME))
        return refuse(r, "names", i, ": expected a text");
    uint32_t n = 0, from = s[0] != '*' ? 0 : s[1] == '.' ? 2 : 1;
    for (; s[n]; n++) {
        if (s[n] >= 'A' && s[n] <= 'Z')
            s[n] = (char)(s[n] | 32);
        bool plain = (s[n] >= 'a' && s[n] <= 'z') || (s[n] >= '0' && s[n] <= '9') || s[n] == '-' || s[n] == '.' || s[n] == '_';
        if (n >= from && !plain)
            return refuse(r, "names", i, ": no host name such as example.org or *.example.org");
    }
    if (from == 1 ? n != 1 : n <= from)
        return refuse(r, "names", i, ": no host name such as example.org or *.example.org");
    names[name_count].len = n;
    names[name_count++].route = (uint32_t)r->route;
    return true;
}

static bool read_names(reader *r) {
    if (!callout_json_open(&r->json, '['))
        return refuse(r, "names", -1, ": expected a list");
    for (int32_t i = 0; callout_json_next(&r->json, ']'); i++)
        if (!read_name(r, i))
            return false;
    return !r->json.failed;
}

static bool unknown(reader *r, const char *key) {
    char what[64] = " has no key \"";
    uint32_t n = 13;
    for (; *key && n < sizeof what - 2; key++)
        what[n++] = *key;
    what[n] = '"';
    what[n + 1] = 0;
    return refuse(r, r->route < 0 ? "the configuration" : "", -1, what);
}

/* Reads the keys of an object with a function for each; false after a mistake. */
static bool read_object(reader *r, const char *at, bool (*member)(reader *, const char *key)) {
    char key[32];
    if (!callout_json_open(&r->json, '{'))
        return refuse(r, at, -1, ": expected keys and values");
    while (callout_json_next(&r->json, '}'))
        if (!callout_json_key(&r->json, key, sizeof key) || !member(r, key))
            return false;
    return !r->json.failed;
}

static bool route_member(reader *r, const char *key) {
    route *to = &routes[r->route];
    if (same(key, "names"))
        return read_names(r);
    if (same(key, "proxy"))
        return read_proxy(r, key, &to->to);
    if (same(key, "pid"))
        return read_pid(r, key, &to->to);
    if (same(key, "action"))
        return read_action(r, key, &to->action);
    return unknown(r, key);
}

static bool read_route(reader *r) {
    uint32_t before = name_count;
    route *to = &routes[r->route];
    if (!read_object(r, "", route_member))
        return false;
    if (name_count == before)
        return refuse(r, "names", -1, ": at least one is required");
    if (!to->to.port && to->to.pid)
        return refuse(r, "proxy", -1, ": required with pid");
    if (!to->to.port)
        return true;
    if (!to->to.pid)
        return refuse(r, "pid", -1, ": required with proxy");
    if (to->action != PERMIT)
        return refuse(r, "action", -1, ": a route has either a proxy or an action");
    to->action = PROXY;
    return true;
}

static bool peek_member(reader *r, const char *key) {
    if (same(key, "proxy"))
        return read_proxy(r, "peek.proxy", &peek);
    if (same(key, "pid"))
        return read_pid(r, "peek.pid", &peek);
    return refuse(r, "peek", -1, ": its keys are proxy and pid");
}

static bool member(reader *r, const char *key) {
    if (same(key, "peek"))
        return read_object(r, "peek", peek_member);
    if (same(key, "otherwise"))
        return read_action(r, key, &otherwise);
    if (!same(key, "routes"))
        return unknown(r, key);
    if (!callout_json_open(&r->json, '['))
        return refuse(r, "routes", -1, ": expected a list");
    while (callout_json_next(&r->json, ']')) {
        if (route_count == MAX_ROUTES)
            return refuse(r, "routes", -1, ": more than 64");
        r->route = (int32_t)route_count++;
        if (!read_route(r))
            return false;
    }
    r->route = -1;
    return !r->json.failed;
}

const char *callout_configure(const uint8_t *config, uint32_t len) {
    reader r = {callout_json_begin(config, len), NULL, -1};
    __builtin_memset(routes, 0, sizeof routes);
    __builtin_memset(&peek, 0, sizeof peek);
    name_count = route_count = 0;
    otherwise = PERMIT;
    bool read = read_object(&r, "the configuration", member) && callout_json_done(&r.json);
    if (r.why)
        return r.why;
    if (!read)
        return "the configuration is no JSON that this callout reads";
    if (!peek.port || !peek.pid)
        return "peek: required, {proxy: \"${proxy:ID}\", pid: \"${pid}\"}";
    return NULL;
}

/* Reports whether a host has the name, or is below it. Below * is every host with a name. */
static bool is_named(callout_bytes host, const char *name, uint32_t len) {
    if (name[0] == '*') {
        name++;
        len--;
        if (host.len <= len)
            return false;
        host.ptr += host.len - len;
        host.len = len;
    }
    return host.len == len && callout_begins(host, name);
}

/* What becomes of a name: the first route that has it counts. */
static const route *route_of(callout_bytes host) {
    static route rest;
    for (uint32_t i = 0; i < name_count; i++)
        if (is_named(host, names[i].text, names[i].len))
            return &routes[names[i].route];
    rest.action = otherwise;
    return &rest;
}

/* Sends a connection to a proxy, whose context is the SOCKADDR_STORAGE of where it
 * was going. */
static callout_verdict send(const callout_call *call, const target *to, uint8_t done) {
    static uint8_t context[128], record[1];
    uint8_t address[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    __builtin_memset(context, 0, sizeof context);
    callout_put16(context, call->ip_version == 4 ? 2 : 23); /* AF_INET, AF_INET6 */
    callout_put16(context + 2, __builtin_bswap16(call->remote_port));
    if (call->ip_version == 4)
        __builtin_memcpy(context + 4, call->remote + 12, 4);
    else
        __builtin_memcpy(context + 8, call->remote, 16);
    callout_put32(address + 12, __builtin_bswap32(to->address));
    callout_verdict v = callout_redirect6(address, to->port, to->pid);
    v.ip_version = call->ip_version;
    record[0] = done;
    return callout_with_record(callout_with_context(v, context, sizeof context), record, sizeof record);
}

static callout_verdict block_name(callout_bytes host) {
    said_len = 0;
    for (uint32_t i = 0; i < host.len && said_len < 256; i++)
        said[said_len++] = (char)host.ptr[i];
    said[said_len] = 0;
    say(host.len ? " is blocked" : "a connection that asks for no name is blocked");
    return callout_block(said);
}

callout_verdict callout_decide(const callout_call *call) {
    bool where = call->layer == 66 || call->layer == 67; /* FWPS_LAYER_ALE_CONNECT_REDIRECT_V4, _V6 */
    bool peeked = call->state == CALLOUT_STATE_REDIRECTED_BY_SELF && call->record.len == 1 && call->record.ptr[0] == PEEKED;
    if (peeked) {
        const route *r = route_of(call->hostname);
        if (where && r->action == PROXY)
            return send(call, &r->to, ROUTED);
        return !where && r->action == BLOCK ? block_name(call->hostname) : callout_continue();
    }
    /* A proxy is IPv4, and a redirect keeps the family (CR-07). */
    if (where && call->state == CALLOUT_STATE_NOT_REDIRECTED && call->protocol == 6 && callout_v4(call->remote))
        return send(call, &peek, PEEKED);
    return callout_continue();
}
