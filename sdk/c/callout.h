/*
 * callout.h: callouts in C and C++, one header. It is the normative text of the
 * guest ABI "callout v1" as code; sdk/abi/ABI.md says the same in words.
 *
 * A policy includes it and defines two functions:
 *
 *     #include "callout.h"
 *
 *     callout_verdict callout_decide(const callout_call *call) {
 *         if (call->remote_port == 80)
 *             return callout_block("no plain HTTP");
 *         return callout_continue();
 *     }
 *
 *     const char *callout_configure(const uint8_t *config, uint32_t len) {
 *         return NULL;            // or why the configuration is refused
 *     }
 *
 * Built for WebAssembly the header also defines the exports; built for anything
 * else it defines none, so that a test can include the policy and call it.
 * Nothing needs a C library.
 */
#ifndef CALLOUT_H
#define CALLOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
#define CALLOUT_C extern "C"
#define CALLOUT_ALIGNED(n) alignas(n)
#else
#define CALLOUT_C extern
#define CALLOUT_ALIGNED(n) _Alignas(n)
#endif

/* begin of what sdk/abi/gen.go makes */
#define CALLOUT_MINOR 0

#define CALLOUT_BLOCK_SIZE 0x4000 /* the exchange block */
#define CALLOUT_BLOCK_ALIGN 0x40 /* its alignment */
#define CALLOUT_REQUEST_OFFSET 0x0 /* where the request begins in the block */
#define CALLOUT_RESPONSE_OFFSET 0x2000 /* where the response begins in the block */
#define CALLOUT_REQUEST_HEADER 0x80 /* bytes of the request before its items */
#define CALLOUT_RESPONSE_HEADER 0x40 /* bytes of the response before its items */
#define CALLOUT_INIT_CHUNK 0x2000 /* most configuration bytes of one callout_init */
#define CALLOUT_INIT_MORE 0x80000000 /* bit of callout_init's argument: more bytes follow */
#define CALLOUT_NOTIFY_NONE 0x40000000 /* callout_notify's result of a guest that wants to hear of no event: the instance is told of none again */

#define CALLOUT_MAX_APP 4096 /* path of the program */
#define CALLOUT_MAX_USER 256 /* name of the user */
#define CALLOUT_MAX_HOSTNAME 256 /* host name */
#define CALLOUT_MAX_RECORD 3456 /* record: all items of a request but the context fit together, so that a record that was accepted can always be given back */
#define CALLOUT_MAX_CONTEXT 4096 /* context: where it does not fit a request it is left out */
#define CALLOUT_MAX_REASON 1024 /* reason */

/* Offsets in the request. */
#define CALLOUT_REQ_SIZE 0 /* u32: bytes of the header and the items: a later host may have a longer header */
#define CALLOUT_REQ_MINOR 4 /* u16: minor version of the host */
#define CALLOUT_REQ_LAYER 6 /* u16: FWPS layer */
#define CALLOUT_REQ_PRESENT 8 /* u32: which of the fields below are known */
#define CALLOUT_REQ_CONDITION_FLAGS 12 /* u32: FWP_CONDITION_FLAG_* */
#define CALLOUT_REQ_CONNECTION 16 /* u64: transport endpoint handle */
#define CALLOUT_REQ_FILTER 24 /* u64: filter that calls out */
#define CALLOUT_REQ_PID 32 /* u32: process */
#define CALLOUT_REQ_UID 36 /* u32: user, as a number */
#define CALLOUT_REQ_IP_VERSION 40 /* u8: 4 or 6; a v4-mapped address of a version 6 socket is 6 */
#define CALLOUT_REQ_PROTOCOL 41 /* u8: IP protocol */
#define CALLOUT_REQ_LOCAL_PORT 42 /* u16 */
#define CALLOUT_REQ_REMOTE_PORT 44 /* u16 */
#define CALLOUT_REQ_REDIRECT_STATE 46 /* u8: FWPS_CONNECTION_REDIRECT_STATE for this callout */
#define CALLOUT_REQ_DIRECTION 47 /* u8: 0 outbound, 1 inbound */
#define CALLOUT_REQ_LOCAL 48 /* u8[16]: local address, v4 as v4-mapped */
#define CALLOUT_REQ_REMOTE 64 /* u8[16]: remote address, v4 as v4-mapped */
#define CALLOUT_REQ_APP 80 /* u32, u32: offset and length of the program's path */
#define CALLOUT_REQ_USER 88 /* u32, u32: offset and length of the user's name */
#define CALLOUT_REQ_RECORD 96 /* u32, u32: offset and length of the record that this callout once gave for the connection */
#define CALLOUT_REQ_CONTEXT 104 /* u32, u32: offset and length of the context it gave with it. Offset 0 with a length: it did not fit */
#define CALLOUT_REQ_MONOTONIC 112 /* u64: nanoseconds of a clock that only goes forward, in steps of some milliseconds */
#define CALLOUT_REQ_INTERFACE 120 /* u32: index of the interface */
#define CALLOUT_REQ_HOSTNAME 124 /* u16, u16: offset and length of the host name */

/* What is known of a request. */
#define CALLOUT_PRESENT_LOCAL 0x1
#define CALLOUT_PRESENT_REMOTE 0x2
#define CALLOUT_PRESENT_PID 0x4
#define CALLOUT_PRESENT_UID 0x8
#define CALLOUT_PRESENT_APP 0x10
#define CALLOUT_PRESENT_USER 0x20
#define CALLOUT_PRESENT_RECORD 0x40
#define CALLOUT_PRESENT_CONTEXT 0x80
#define CALLOUT_PRESENT_HOSTNAME 0x100
#define CALLOUT_PRESENT_INTERFACE 0x200

/* Condition flags, FWP_CONDITION_FLAG_*. */
#define CALLOUT_CONDITION_FLAG_IS_LOOPBACK 0x1 /* to or from this machine */
#define CALLOUT_CONDITION_FLAG_IS_IPSEC_SECURED 0x2
#define CALLOUT_CONDITION_FLAG_IS_REAUTHORIZE 0x4 /* a flow that is asked about again */
#define CALLOUT_CONDITION_FLAG_IS_WILDCARD_BIND 0x8 /* a bind to any address */
#define CALLOUT_CONDITION_FLAG_IS_RAW_ENDPOINT 0x10 /* a raw socket */
#define CALLOUT_CONDITION_FLAG_IS_IMPLICIT_BIND 0x200 /* a bind that the program did not ask for */
#define CALLOUT_CONDITION_FLAG_IS_NAME_APP_SPECIFIED 0x4000
#define CALLOUT_CONDITION_FLAG_IS_PROMISCUOUS 0x8000
#define CALLOUT_CONDITION_FLAG_IS_AUTH_FW 0x10000
#define CALLOUT_CONDITION_FLAG_IS_RECLASSIFY 0x20000 /* the same, at the layers of binds and listens */
#define CALLOUT_CONDITION_FLAG_IS_CONNECTION_REDIRECTED 0x100000 /* it was redirected */
#define CALLOUT_CONDITION_FLAG_IS_PROXY_CONNECTION 0x200000 /* what a proxy makes on behalf of a redirected one */
#define CALLOUT_CONDITION_FLAG_IS_APPCONTAINER_LOOPBACK 0x400000
#define CALLOUT_CONDITION_FLAG_IS_NON_APPCONTAINER_LOOPBACK 0x800000
#define CALLOUT_CONDITION_FLAG_IS_HONORING_POLICY_AUTHORIZE 0x2000000

/* Offsets in the response. */
#define CALLOUT_RESP_ACTION 0 /* u32: action, as in the packed answer */
#define CALLOUT_RESP_FLAGS 4 /* u32: flags, as in the packed answer */
#define CALLOUT_RESP_PORT 8 /* u16: new port, as in the packed answer */
#define CALLOUT_RESP_IP_VERSION 10 /* u8: 4 or 6 */
#define CALLOUT_RESP_TARGET_PID 12 /* u32: process of the proxy */
#define CALLOUT_RESP_ADDRESS 16 /* u8[16]: new address, v4 as v4-mapped */
#define CALLOUT_RESP_RECORD_LEN 32 /* u32: length of the record, as in the packed answer */
#define CALLOUT_RESP_CONTEXT_LEN 36 /* u32: length of the context */
#define CALLOUT_RESP_RECORD_OFF 40 /* u32: offset of the record from the block's start */
#define CALLOUT_RESP_CONTEXT_OFF 44 /* u32: offset of the context from the block's start */
#define CALLOUT_RESP_REASON 48 /* u32, u32: offset from the block's start and length of a text for people, UTF-8 */
#define CALLOUT_RESP_COOKIE 56 /* u64: the guest's own; the host does not look at it */

/* Offsets in the response while callout_init runs. */
#define CALLOUT_INIT_SIZE 0 /* u32: bytes of this header */
#define CALLOUT_INIT_MINOR 4 /* u16: minor version of the host */
#define CALLOUT_INIT_GRANTED 8 /* u32: capabilities that the guest has */

/* Actions. */
#define CALLOUT_ACTION_INVALID 0x0 /* what an unwritten response reads as: an error, never a permit */
#define CALLOUT_ACTION_PERMIT 0x1
#define CALLOUT_ACTION_BLOCK 0x2
#define CALLOUT_ACTION_REDIRECT 0x3 /* the response says where to; permits */
#define CALLOUT_ACTION_CONTINUE 0x4 /* leaves the decision to the next filter */
#define CALLOUT_ACTION_PEND 0x5 /* decides later; a host may refuse */
#define CALLOUT_ACTION_GUEST_ERROR 0xffff /* the guest failed; the reason says why */

/* Flags of an answer. */
#define CALLOUT_FLAG_HARD 1 /* clears FWPS_RIGHT_ACTION_WRITE */
#define CALLOUT_FLAG_KEEP_CONTEXT 2 /* a redirect keeps the context that the connection has */
#define CALLOUT_FLAG_NO_RECORD 4 /* redirects without a redirect handle: no record is made */
#define CALLOUT_FLAG_CACHEABLE 8 /* equal inputs get the same answer */

/* The packed answer: the action in bits 0-15, and */
#define CALLOUT_PACK_PORT 16 /* bits 16-31 */
#define CALLOUT_PACK_RECORD 32 /* bits 32-47 */
#define CALLOUT_PACK_FLAGS 48 /* bits 48-63 */

/* Who redirected a connection. */
#define CALLOUT_STATE_NOT_REDIRECTED 0
#define CALLOUT_STATE_REDIRECTED_BY_SELF 1
#define CALLOUT_STATE_REDIRECTED_BY_OTHER 2
#define CALLOUT_STATE_PREVIOUSLY_REDIRECTED_BY_SELF 3

/* Events. */
#define CALLOUT_EVENT_FILTER_ADDED 1 /* a filter calls this callout out; told to every instance */
#define CALLOUT_EVENT_FILTER_DELETED 2 /* it no longer does */
#define CALLOUT_EVENT_FLOW_ESTABLISHED 3 /* a connection that this callout permitted is established. The request is as for callout_classify, the response has the cookie that the callout gave for it; told to one instance */
#define CALLOUT_EVENT_FLOW_DELETED 4 /* it has ended */
#define CALLOUT_EVENT_REDIRECT_DONE 5 /* a connection was sent to where this callout redirected it. The request is as for callout_classify, with the record and the context; told to one instance */

/* Capabilities. */
#define CALLOUT_CAP_LOG 0x1
#define CALLOUT_CAP_RANDOM 0x2
#define CALLOUT_CAP_WALL 0x4
#define CALLOUT_CAP_KV 0x8
#define CALLOUT_CAP_METRIC 0x10
#define CALLOUT_CAP_SETS 0x20
#define CALLOUT_CAP_TABLES 0x40
#define CALLOUT_CAP_NAMES 0x80

/* Errors of the host's functions. */
#define CALLOUT_ERR_DENIED (-1) /* the guest does not have the capability */
#define CALLOUT_ERR_POINTER (-2) /* a pointer or length is outside the memory */
#define CALLOUT_ERR_NOT_FOUND (-3) /* no such key, set or table, or no prefix of the table that holds the address */
#define CALLOUT_ERR_TOO_LARGE (-4) /* over a limit, or it does not fit the buffer */
#define CALLOUT_ERR_FULL (-5) /* no room */
#define CALLOUT_ERR_UNSUPPORTED (-7) /* not possible now */

/* Layers. */
#define CALLOUT_LAYER_ALE_BIND_REDIRECT_V4 68 /* a bind that may go to another local address */
#define CALLOUT_LAYER_ALE_BIND_REDIRECT_V6 69
#define CALLOUT_LAYER_ALE_RESOURCE_ASSIGNMENT_V4 36 /* a bind */
#define CALLOUT_LAYER_ALE_RESOURCE_ASSIGNMENT_V6 38
#define CALLOUT_LAYER_ALE_AUTH_LISTEN_V4 40 /* a listen */
#define CALLOUT_LAYER_ALE_AUTH_LISTEN_V6 42
#define CALLOUT_LAYER_ALE_CONNECT_REDIRECT_V4 66 /* a connection, or the first datagram of a flow, that may go elsewhere */
#define CALLOUT_LAYER_ALE_CONNECT_REDIRECT_V6 67
#define CALLOUT_LAYER_ALE_AUTH_CONNECT_V4 48 /* the same, when it is known where it goes */
#define CALLOUT_LAYER_ALE_AUTH_CONNECT_V6 50
#define CALLOUT_LAYER_ALE_AUTH_RECV_ACCEPT_V4 44 /* a connection that comes in */
#define CALLOUT_LAYER_ALE_AUTH_RECV_ACCEPT_V6 46
#define CALLOUT_LAYER_ALE_FLOW_ESTABLISHED_V4 52 /* it is established; a block stops nothing */
#define CALLOUT_LAYER_ALE_FLOW_ESTABLISHED_V6 54
#define CALLOUT_LAYER_ALE_ENDPOINT_CLOSURE_V4 64 /* it has ended */
#define CALLOUT_LAYER_ALE_ENDPOINT_CLOSURE_V6 65
#define CALLOUT_LAYER_ALE_RESOURCE_RELEASE_V4 62 /* a bind has ended */
#define CALLOUT_LAYER_ALE_RESOURCE_RELEASE_V6 63
/* end of what sdk/abi/gen.go makes */

/* The largest configuration, in bytes. Define it before the include to change it. */
#ifndef CALLOUT_MAX_CONFIG
#define CALLOUT_MAX_CONFIG 65536
#endif

/* Bytes that somebody else owns. Those of a call are valid during the call only. */
typedef struct {
    const uint8_t *ptr;
    uint32_t len;
} callout_bytes;

/* One connection to decide. */
typedef struct {
    uint16_t layer;
    uint8_t protocol;
    bool inbound;
    uint32_t flags; /* CALLOUT_CONDITION_FLAG_* */
    uint64_t connection, filter;
    uint32_t present; /* CALLOUT_PRESENT_*: which of the following are known */
    uint32_t pid, uid;
    uint8_t ip_version; /* 4 or 6 */
    uint8_t state;      /* CALLOUT_STATE_*: who redirected the connection */
    uint16_t local_port, remote_port;
    const uint8_t *local, *remote; /* 16 bytes each, v4 as v4-mapped */
    uint64_t monotonic;            /* nanoseconds */
    uint32_t interface_index;
    callout_bytes app, user, hostname;
    callout_bytes record;  /* what this callout once gave for the connection */
    callout_bytes context; /* likewise; ptr is NULL where it did not fit */
} callout_call;

/* An answer. A verdict that is all zero is an error, never a permit. */
typedef struct {
    uint16_t action, flags;
    uint16_t port;
    uint8_t ip_version;
    uint32_t pid;
    uint8_t address[16];
    uint64_t cookie;
    callout_bytes record, context, reason;
} callout_verdict;

/* What a policy hears of that defines CALLOUT_NOTIFY before the include. */
typedef struct {
    uint32_t kind; /* CALLOUT_EVENT_* */
    uint16_t layer;
    uint64_t filter; /* of an event about a filter, else for which the callout decided */
    uint64_t connection; /* of FLOW_ESTABLISHED and REDIRECT_DONE, as of the call */
    uint64_t cookie; /* of a flow */
} callout_event;

/* What the policy defines. They are static, with or without the word there, so
 * that the compiler makes one function of policy and header: what the policy does
 * not look at is not read. */
static callout_verdict callout_decide(const callout_call *call);
static const char *callout_configure(const uint8_t *config, uint32_t len);
#ifdef CALLOUT_NOTIFY
/* What callout_notified returns for a guest that wants to hear of no event: the instance is told of none again. */
static const char callout_no_events[] = "";
/* Returns NULL, or why a filter that is added is refused. */
static const char *callout_notified(const callout_event *event);
#endif

static inline callout_bytes callout_span(const void *ptr, uint32_t len) {
    callout_bytes b;
    b.ptr = (const uint8_t *)ptr;
    b.len = len;
    return b;
}

/* strlen, which is known for a constant and in no library here for the rest. */
static inline uint32_t callout_length(const char *s) {
    uint32_t n = 0;
    if (__builtin_constant_p(__builtin_strlen(s)))
        return (uint32_t)__builtin_strlen(s);
    while (s[n])
        n++;
    return n;
}

static inline callout_bytes callout_text(const char *s) { return callout_span(s, callout_length(s)); }

static inline callout_verdict callout_answer(uint16_t action) {
    callout_verdict v = {0};
    v.action = action;
    return v;
}

/* Lets the connection pass. */
static inline callout_verdict callout_permit(void) { return callout_answer(CALLOUT_ACTION_PERMIT); }

/* Refuses it; reason is what the user reads. */
static inline callout_verdict callout_block(const char *reason) {
    callout_verdict v = callout_answer(CALLOUT_ACTION_BLOCK);
    v.reason = callout_text(reason);
    return v;
}

/* Leaves the decision to the next filter. */
static inline callout_verdict callout_continue(void) { return callout_answer(CALLOUT_ACTION_CONTINUE); }

/* Says that the callout failed. The connection is blocked. */
static inline callout_verdict callout_error(const char *reason) {
    callout_verdict v = callout_answer(CALLOUT_ACTION_GUEST_ERROR);
    v.reason = callout_text(reason);
    return v;
}

/* Sends it to a proxy: pid is the proxy's process, not zero for one on this host. */
static inline callout_verdict callout_redirect6(const uint8_t address[16], uint16_t port, uint32_t pid) {
    callout_verdict v = callout_answer(CALLOUT_ACTION_REDIRECT);
    v.ip_version = 6;
    v.port = port;
    v.pid = pid;
    for (int i = 0; i < 16; i++)
        v.address[i] = address[i];
    return v;
}

static inline callout_verdict callout_redirect4(uint8_t a, uint8_t b, uint8_t c, uint8_t d, uint16_t port, uint32_t pid) {
    callout_verdict v = callout_answer(CALLOUT_ACTION_REDIRECT);
    v.ip_version = 4;
    v.port = port;
    v.pid = pid;
    v.address[10] = v.address[11] = 0xff;
    v.address[12] = a;
    v.address[13] = b;
    v.address[14] = c;
    v.address[15] = d;
    return v;
}

/* Adds bytes that come back when the proxy's own connection is decided. */
static inline callout_verdict callout_with_record(callout_verdict v, const void *ptr, uint32_t len) {
    v.record = callout_span(ptr, len);
    return v;
}

/* Adds bytes for the proxy. */
static inline callout_verdict callout_with_context(callout_verdict v, const void *ptr, uint32_t len) {
    v.context = callout_span(ptr, len);
    return v;
}

static inline callout_verdict callout_with_reason(callout_verdict v, const char *reason) {
    v.reason = callout_text(reason);
    return v;
}

/* Adds CALLOUT_FLAG_*, such as CALLOUT_FLAG_HARD. */
static inline callout_verdict callout_with_flags(callout_verdict v, uint16_t flags) {
    v.flags |= flags;
    return v;
}

/* Makes a number, not zero, the context of an established flow: it comes back in
 * the event FLOW_DELETED. */
static inline callout_verdict callout_with_cookie(callout_verdict v, uint64_t cookie) {
    v.cookie = cookie;
    return v;
}

/* Numbers in memory are little endian, whatever this machine is. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define CALLOUT_NUMBER(bits)                                              \
    static inline uint##bits##_t callout_get##bits(const uint8_t *p) {    \
        uint##bits##_t v;                                                 \
        __builtin_memcpy(&v, p, sizeof v);                                \
        return v;                                                         \
    }                                                                     \
    static inline void callout_put##bits(uint8_t *p, uint##bits##_t v) { __builtin_memcpy(p, &v, sizeof v); }
#else
#define CALLOUT_NUMBER(bits)                                              \
    static inline uint##bits##_t callout_get##bits(const uint8_t *p) {    \
        uint##bits##_t v = 0;                                             \
        for (int i = 0; i < bits / 8; i++)                                \
            v |= (uint##bits##_t)((uint##bits##_t)p[i] << 8 * i);         \
        return v;                                                         \
    }                                                                     \
    static inline void callout_put##bits(uint8_t *p, uint##bits##_t v) {  \
        for (int i = 0; i < bits / 8; i++)                                \
            p[i] = (uint8_t)(v >> 8 * i);                                 \
    }
#endif
CALLOUT_NUMBER(16)
CALLOUT_NUMBER(32)
CALLOUT_NUMBER(64)

/* Reports whether this callout has redirected the connection, which is then its
 * proxy's own: it must not be sent to the proxy again. */
static inline bool callout_by_self(const callout_call *call) {
    return call->state == CALLOUT_STATE_REDIRECTED_BY_SELF || call->state == CALLOUT_STATE_PREVIOUSLY_REDIRECTED_BY_SELF;
}

/* The IPv4 address of 16 bytes, in host order; 0 for IPv6. */
static inline uint32_t callout_v4(const uint8_t address[16]) {
    if (callout_get64(address) != 0 || callout_get32(address + 8) != 0xffff0000)
        return 0;
    return __builtin_bswap32(callout_get32(address + 12));
}

/* Reports whether bytes begin with a text. */
static inline bool callout_begins(callout_bytes b, const char *prefix) {
    uint32_t n = callout_length(prefix), i = 0;
    if (b.len < n)
        return false;
    for (; n - i >= 8; i += 8) /* A prefix is a constant as a rule, and so is this. */
        if (callout_get64(b.ptr + i) != callout_get64((const uint8_t *)prefix + i))
            return false;
    for (; i < n; i++)
        if (b.ptr[i] != (uint8_t)prefix[i])
            return false;
    return true;
}

/* Reading and writing the exchange block. All of it is inlined: what a policy
 * does not look at is not read, and its verdict stays in registers. */
#define CALLOUT_INLINE static inline __attribute__((always_inline))

/* Reads an item; false if it is outside the request. Offset 0 is a nothing that has a length. */
CALLOUT_INLINE bool callout_item(const uint8_t *block, uint32_t off, uint32_t len, callout_bytes *out) {
    *out = callout_span(off ? block + off : NULL, len);
    return !len || !off || (off >= CALLOUT_REQUEST_HEADER && (uint64_t)off + len <= CALLOUT_RESPONSE_OFFSET);
}

/* Reads the request; false if it is malformed. */
CALLOUT_INLINE bool callout_read(const uint8_t *b, callout_call *c) {
    c->layer = callout_get16(b + CALLOUT_REQ_LAYER);
    c->protocol = b[CALLOUT_REQ_PROTOCOL];
    c->inbound = b[CALLOUT_REQ_DIRECTION] == 1;
    c->flags = callout_get32(b + CALLOUT_REQ_CONDITION_FLAGS);
    c->connection = callout_get64(b + CALLOUT_REQ_CONNECTION);
    c->filter = callout_get64(b + CALLOUT_REQ_FILTER);
    c->present = callout_get32(b + CALLOUT_REQ_PRESENT);
    c->pid = callout_get32(b + CALLOUT_REQ_PID);
    c->uid = callout_get32(b + CALLOUT_REQ_UID);
    c->ip_version = b[CALLOUT_REQ_IP_VERSION];
    c->state = b[CALLOUT_REQ_REDIRECT_STATE];
    c->local_port = callout_get16(b + CALLOUT_REQ_LOCAL_PORT);
    c->remote_port = callout_get16(b + CALLOUT_REQ_REMOTE_PORT);
    c->local = b + CALLOUT_REQ_LOCAL;
    c->remote = b + CALLOUT_REQ_REMOTE;
    c->monotonic = callout_get64(b + CALLOUT_REQ_MONOTONIC);
    c->interface_index = callout_get32(b + CALLOUT_REQ_INTERFACE);
    return callout_item(b, callout_get32(b + CALLOUT_REQ_APP), callout_get32(b + CALLOUT_REQ_APP + 4), &c->app) &&
           callout_item(b, callout_get32(b + CALLOUT_REQ_USER), callout_get32(b + CALLOUT_REQ_USER + 4), &c->user) &&
           callout_item(b, callout_get16(b + CALLOUT_REQ_HOSTNAME), callout_get16(b + CALLOUT_REQ_HOSTNAME + 2), &c->hostname) &&
           callout_item(b, callout_get32(b + CALLOUT_REQ_RECORD), callout_get32(b + CALLOUT_REQ_RECORD + 4), &c->record) &&
           callout_item(b, callout_get32(b + CALLOUT_REQ_CONTEXT), callout_get32(b + CALLOUT_REQ_CONTEXT + 4), &c->context);
}

/* Shortens a text to n bytes and keeps its last character whole. */
CALLOUT_INLINE callout_bytes callout_cut(callout_bytes s, uint32_t n) {
    if (s.len <= n)
        return s;
    while (n > 0 && (s.ptr[n] & 0xc0) == 0x80)
        n--;
    s.len = n;
    return s;
}

CALLOUT_INLINE uint32_t callout_append(uint8_t *block, uint32_t at, callout_bytes item, uint32_t off_field, uint32_t len_field) {
    if (item.len)
        __builtin_memcpy(block + at, item.ptr, item.len);
    callout_put32(block + CALLOUT_RESPONSE_OFFSET + off_field, at);
    callout_put32(block + CALLOUT_RESPONSE_OFFSET + len_field, item.len);
    return at + item.len;
}

/* Writes the response and returns the packed answer. */
CALLOUT_INLINE uint64_t callout_write(uint8_t *b, callout_verdict v) {
    uint8_t *r = b + CALLOUT_RESPONSE_OFFSET;
    if (v.action == CALLOUT_ACTION_INVALID)
        v = callout_error("the callout gave no verdict");
    if (v.record.len > CALLOUT_MAX_RECORD)
        v = callout_error("the record is over the limit of 3456 bytes");
    else if (v.context.len > CALLOUT_MAX_CONTEXT)
        v = callout_error("the context is over the limit of 4096 bytes");
    uint32_t room = CALLOUT_BLOCK_SIZE - CALLOUT_RESPONSE_OFFSET - CALLOUT_RESPONSE_HEADER - v.record.len - v.context.len;
    v.reason = callout_cut(v.reason, room < CALLOUT_MAX_REASON ? room : CALLOUT_MAX_REASON);
    if (v.action != CALLOUT_ACTION_REDIRECT && !v.reason.len && !v.cookie)
        return v.action | (uint64_t)v.flags << CALLOUT_PACK_FLAGS;
    uint32_t at = CALLOUT_RESPONSE_OFFSET + CALLOUT_RESPONSE_HEADER;
    callout_put32(r + CALLOUT_RESP_ACTION, v.action);
    callout_put32(r + CALLOUT_RESP_FLAGS, v.flags);
    callout_put64(r + CALLOUT_RESP_COOKIE, v.cookie);
    if (v.action == CALLOUT_ACTION_REDIRECT) {
        callout_put16(r + CALLOUT_RESP_PORT, v.port);
        r[CALLOUT_RESP_IP_VERSION] = v.ip_version;
        callout_put32(r + CALLOUT_RESP_TARGET_PID, v.pid);
        __builtin_memcpy(r + CALLOUT_RESP_ADDRESS, v.address, 16);
        at = callout_append(b, at, v.record, CALLOUT_RESP_RECORD_OFF, CALLOUT_RESP_RECORD_LEN);
        at = callout_append(b, at, v.context, CALLOUT_RESP_CONTEXT_OFF, CALLOUT_RESP_CONTEXT_LEN);
    } else {
        v.port = 0;
        v.record.len = 0;
    }
    callout_append(b, at, v.reason, CALLOUT_RESP_REASON, CALLOUT_RESP_REASON + 4);
    return v.action | (uint64_t)v.port << CALLOUT_PACK_PORT | (uint64_t)v.record.len << CALLOUT_PACK_RECORD |
           (uint64_t)v.flags << CALLOUT_PACK_FLAGS;
}

#ifdef __wasm__
#define CALLOUT_IMPORT(name) CALLOUT_C __attribute__((import_module("callout"), import_name(#name)))
#else
#define CALLOUT_IMPORT(name) CALLOUT_C
#endif

/* What the host offers. A policy that uses one defines CALLOUT_REQUIRED or
 * CALLOUT_OPTIONAL, before the include, as the CALLOUT_CAP_* bits it asks for.
 * A result below zero is a CALLOUT_ERR_*. A native test is the host: it defines those
 * that the callout uses. */
CALLOUT_IMPORT(log) int32_t callout_log(int32_t level, const void *text, uint32_t len);
CALLOUT_IMPORT(random) int32_t callout_random(void *buf, uint32_t len);
CALLOUT_IMPORT(wall) int64_t callout_wall(void);
CALLOUT_IMPORT(kv_get) int32_t callout_kv_get(const void *key, uint32_t klen, void *buf, uint32_t cap);
CALLOUT_IMPORT(kv_set) int32_t callout_kv_set(const void *key, uint32_t klen, const void *value, uint32_t vlen, uint32_t ttl);
CALLOUT_IMPORT(kv_del) int32_t callout_kv_del(const void *key, uint32_t klen);
CALLOUT_IMPORT(metric_add) int32_t callout_metric_add(const void *name, uint32_t len, int64_t delta);
CALLOUT_IMPORT(cidr_match) int32_t callout_cidr_match(uint32_t set);
CALLOUT_IMPORT(table_lookup) int32_t callout_table_lookup(uint32_t table);
CALLOUT_IMPORT(dns_names) int32_t callout_dns_names(void *buf, uint32_t cap);

#ifndef __wasm__
CALLOUT_C uint32_t callout_granted(void);
#else

#define CALLOUT_EXPORT(name) CALLOUT_C __attribute__((export_name(#name)))

static struct {
    CALLOUT_ALIGNED(CALLOUT_BLOCK_ALIGN) uint8_t block[CALLOUT_BLOCK_SIZE];
    uint8_t config[CALLOUT_MAX_CONFIG];
    uint32_t config_len, granted;
} callout_state;

/* The capabilities that the host granted, known once callout_configure runs. */
static inline uint32_t callout_granted(void) { return callout_state.granted; }

CALLOUT_EXPORT(callout_abi_v1) uint8_t *callout_abi_v1(void) { return callout_state.block; }

#if defined(CALLOUT_REQUIRED) || defined(CALLOUT_OPTIONAL)
#ifndef CALLOUT_REQUIRED
#define CALLOUT_REQUIRED 0
#endif
#ifndef CALLOUT_OPTIONAL
#define CALLOUT_OPTIONAL 0
#endif
CALLOUT_EXPORT(callout_caps) uint64_t callout_caps(void) {
    return (uint32_t)(CALLOUT_REQUIRED) | (uint64_t)(CALLOUT_OPTIONAL) << 32;
}
#endif

CALLOUT_EXPORT(callout_classify) uint64_t callout_classify(void) {
    callout_call call;
    if (!callout_read(callout_state.block, &call))
        return callout_write(callout_state.block, callout_error("a request item is outside the request"));
    return callout_write(callout_state.block, callout_decide(&call));
}

/* Writes why something is refused, and returns the code for it. */
static inline int32_t callout_refuse(const char *why) {
    __builtin_memset(callout_state.block + CALLOUT_RESPONSE_OFFSET, 0, CALLOUT_RESPONSE_HEADER);
    callout_write(callout_state.block, callout_error(why));
    return -1;
}

#ifdef CALLOUT_NOTIFY
CALLOUT_EXPORT(callout_notify) int32_t callout_notify(uint32_t kind) {
    const uint8_t *b = callout_state.block;
    callout_event e;
    e.kind = kind;
    e.layer = callout_get16(b + CALLOUT_REQ_LAYER);
    e.filter = callout_get64(b + CALLOUT_REQ_FILTER);
    e.connection = callout_get64(b + CALLOUT_REQ_CONNECTION);
    e.cookie = callout_get64(b + CALLOUT_RESPONSE_OFFSET + CALLOUT_RESP_COOKIE);
    const char *why = callout_notified(&e);
    if (why == callout_no_events)
        return CALLOUT_NOTIFY_NONE;
    return why ? callout_refuse(why) : 0;
}
#endif

CALLOUT_EXPORT(callout_init) int32_t callout_init(uint32_t arg) {
    uint32_t n = arg & ~(uint32_t)CALLOUT_INIT_MORE;
    const char *why = NULL;
    callout_state.granted = callout_get32(callout_state.block + CALLOUT_RESPONSE_OFFSET + CALLOUT_INIT_GRANTED);
    if (n > CALLOUT_INIT_CHUNK || n > CALLOUT_MAX_CONFIG - callout_state.config_len) {
        why = "the configuration is over the limit";
    } else {
        __builtin_memcpy(callout_state.config + callout_state.config_len, callout_state.block, n);
        callout_state.config_len += n;
        if (arg & CALLOUT_INIT_MORE)
            return 0;
        why = callout_configure(callout_state.config, callout_state.config_len);
    }
    return why ? callout_refuse(why) : 0;
}

#endif /* __wasm__ */
#endif /* CALLOUT_H */
