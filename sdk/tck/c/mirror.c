/* The guest of the TCK: answers by the destination port. See ../mirror.md. */
#define CALLOUT_OPTIONAL 0xff
#define CALLOUT_NOTIFY
#include "callout.h"

static uint8_t out[CALLOUT_MAX_RECORD + 1];
static uint32_t len;
static uint8_t config[32];
static uint32_t config_len;
static uint8_t big[CALLOUT_MAX_CONTEXT + 1];
static char text[2001];

const char *callout_configure(const uint8_t *bytes, uint32_t n) {
    if (n && bytes[0] == '!')
        return "refused";
    config_len = n;
    for (uint32_t i = 0; i < 16 && i < n; i++) {
        config[i] = bytes[i];
        config[16 + i] = bytes[n - 1 - i];
    }
    return NULL;
}

static void put(const void *p, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        out[len++] = ((const uint8_t *)p)[i];
}
static void put8(uint8_t v) { out[len++] = v; }
static void put16(uint16_t v) { put8((uint8_t)v), put8((uint8_t)(v >> 8)); }
static void put32(uint32_t v) { put16((uint16_t)v), put16((uint16_t)(v >> 16)); }
static void put64(uint64_t v) { put32((uint32_t)v), put32((uint32_t)(v >> 32)); }
static void item(callout_bytes b) {
    put32(b.len);
    if (b.ptr)
        put(b.ptr, b.len);
}

static void mirror(const callout_call *c) {
    len = 0;
    put16(c->layer), put8(c->protocol), put8(c->inbound), put32(c->flags), put64(c->connection), put64(c->filter);
    put32(c->present), put32(c->pid), put32(c->uid), put8(c->ip_version), put8(c->state);
    put16(c->local_port), put16(c->remote_port), put(c->local, 16), put(c->remote, 16);
    put64(c->monotonic), put32(c->interface_index);
    item(c->app), item(c->user), item(c->hostname), item(c->record), item(c->context);
}

static callout_verdict to(void) { return callout_redirect4(127, 0, 0, 1, 8080, 77); }

callout_verdict callout_decide(const callout_call *c) {
    static const uint8_t six[16] = {0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
    callout_verdict none = {0};
    switch (c->remote_port) {
    case 1:
        return callout_permit();
    case 2:
        return callout_block("no such place");
    case 3:
        return callout_continue();
    case 4:
        mirror(c);
        return callout_with_context(callout_with_record(to(), out, len), "context", 7);
    case 5:
        return callout_with_flags(callout_permit(), CALLOUT_FLAG_HARD);
    case 6:
        return callout_with_flags(callout_redirect6(six, 8080, 0), CALLOUT_FLAG_NO_RECORD);
    case 7:
        return callout_with_flags(callout_with_record(to(), "again", 5), CALLOUT_FLAG_KEEP_CONTEXT);
    case 8:
        return none;
    case 9:
        return callout_with_record(to(), out, CALLOUT_MAX_RECORD + 1);
    case 10:
        return callout_with_context(to(), big, CALLOUT_MAX_CONTEXT + 1);
    case 11:
        for (uint32_t i = 0; i < CALLOUT_MAX_RECORD; i++)
            out[i] = 'r';
        for (uint32_t i = 0; i < CALLOUT_MAX_CONTEXT; i++)
            big[i] = 'c';
        return callout_with_context(callout_with_record(to(), out, CALLOUT_MAX_RECORD), big, CALLOUT_MAX_CONTEXT);
    case 12:
        return callout_with_reason(callout_with_flags(callout_permit(), CALLOUT_FLAG_CACHEABLE), "because");
    case 13: /* cut inside a character: 1 byte, then 2 for each */
        text[0] = 'a';
        for (int i = 1; i + 1 < 2000; i += 2)
            text[i] = (char)0xc3, text[i + 1] = (char)0xa9;
        return callout_block(text);
    case 14:
        return callout_error("it broke");
    case 15:
        return callout_with_cookie(callout_permit(), 0x8122334455667788);
    default:
        len = 0;
        put32(callout_granted()), put32(config_len), put(config, 32);
        return callout_with_record(to(), out, len);
    }
}

const char *callout_notified(const callout_event *e) {
    if (e->kind == CALLOUT_EVENT_FILTER_ADDED && e->filter == 0x800000000000000d)
        return "no such filter";
    if (e->kind == CALLOUT_EVENT_FLOW_DELETED && (e->cookie != 0x8122334455667788 || e->layer != 0x44))
        return "no such flow";
    if ((e->kind == CALLOUT_EVENT_FLOW_ESTABLISHED || e->kind == CALLOUT_EVENT_REDIRECT_DONE) && e->connection != 0x9000000000000009)
        return "no such connection";
    return NULL;
}
