/*
 * A callout that runs a policy in JavaScript: QuickJS behind the guest ABI. The
 * script stands in the module (sdk/project puts it there) or comes as
 * configuration, {"script": TEXT, "config": ...}.
 */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#define CALLOUT_OPTIONAL 0xff /* The script may use all of the host; what is not granted throws. */
#define CALLOUT_MAX_CONFIG (512 << 10)
#define CALLOUT_NOTIFY
#include "callout.h"
#include "quickjs.h"

extern const char callout_prelude[];

/* What sdk/project looks for: it writes a script to text, and its length. */
#define SCRIPT_CAPACITY (512 << 10)
static char script_text[SCRIPT_CAPACITY];
static volatile struct {
    char mark[16];
    char *text;
    uint32_t capacity, length;
} script = {"callout-script-1", script_text, SCRIPT_CAPACITY, 0};

static JSContext *js;
static JSValue classify, notified, call_object, bytes_constructor;
static const callout_call *current; /* NULL between calls: a call that was kept is dead */
static JSAtom action_atom, flags_atom, port_atom, pid_atom, address_atom, record_atom, context_atom, reason_atom, cookie_atom;

/* What an answer points to. A byte more than the limits shows that they are passed. */
static uint8_t record[CALLOUT_MAX_RECORD], context[CALLOUT_MAX_CONTEXT], reason[CALLOUT_MAX_REASON + 4];

/* An exception as a reason: what it says, and the first place of its stack. */
static callout_bytes thrown(void) {
    JSValue e = JS_GetException(js);
    const char *text = JS_ToCString(js, e);
    uint32_t n = 0;
    for (const char *p = text ? text : "exception"; *p && n < CALLOUT_MAX_REASON; p++)
        reason[n++] = (uint8_t)*p;
    JS_FreeCString(js, text);
    JSValue stack = JS_IsError(js, e) ? JS_GetPropertyStr(js, e, "stack") : JS_UNDEFINED;
    const char *trace = JS_IsString(stack) ? JS_ToCString(js, stack) : NULL;
    if (trace && *trace) {
        const char *p = trace;
        while (*p == ' ')
            p++;
        reason[n++] = ' ';
        for (; *p && *p != '\n' && n < CALLOUT_MAX_REASON; p++)
            reason[n++] = (uint8_t)*p;
    }
    JS_FreeCString(js, trace);
    JS_FreeValue(js, stack);
    JS_FreeValue(js, e);
    return callout_cut(callout_span(reason, n), CALLOUT_MAX_REASON);
}

static callout_verdict error_of(callout_bytes why) {
    callout_verdict v = callout_answer(CALLOUT_ACTION_GUEST_ERROR);
    v.reason = why;
    return v;
}

static JSValue bytes(const uint8_t *p, uint32_t n) {
    JSValue buffer = JS_NewArrayBufferCopy(js, p, n);
    if (JS_IsException(buffer))
        return buffer;
    JSValue array = JS_CallConstructor(js, bytes_constructor, 1, &buffer);
    JS_FreeValue(js, buffer);
    return array;
}

static JSValue text(callout_bytes b) { return JS_NewStringLen(js, (const char *)b.ptr, b.len); }

static JSValue address(const uint8_t *a) {
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    char out[INET6_ADDRSTRLEN];
    bool v4 = current->ip_version == 4 && !memcmp(a, mapped, 12);
    inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? a + 12 : a, out, sizeof out);
    return JS_NewString(js, out);
}

enum { LAYER, PROTOCOL, INBOUND, FLAGS, CONNECTION, FILTER, PRESENT, PID, UID, VERSION, STATE, BY_SELF, LOCAL_PORT, REMOTE_PORT,
       LOCAL, LOCAL_BYTES, REMOTE, REMOTE_BYTES, REMOTE_V4, MONOTONIC, INTERFACE, APP, USER, HOSTNAME, RECORD, CONTEXT, CONTEXT_SIZE };

/* A property of the call, read when the script looks at it. */
static JSValue property(JSContext *ctx, JSValueConst this, int field) {
    const callout_call *c = current;
    (void)this;
    if (!c)
        return JS_ThrowReferenceError(ctx, "a call is only there while it is decided");
    switch (field) {
    case LAYER: return JS_NewInt32(ctx, c->layer);
    case PROTOCOL: return JS_NewInt32(ctx, c->protocol);
    case INBOUND: return JS_NewBool(ctx, c->inbound);
    case FLAGS: return JS_NewInt64(ctx, c->flags);
    case CONNECTION: return JS_NewBigUint64(ctx, c->connection);
    case FILTER: return JS_NewBigUint64(ctx, c->filter);
    case PRESENT: return JS_NewInt64(ctx, c->present);
    case PID: return JS_NewInt64(ctx, c->pid);
    case UID: return JS_NewInt64(ctx, c->uid);
    case VERSION: return JS_NewInt32(ctx, c->ip_version);
    case STATE: return JS_NewInt32(ctx, c->state);
    case BY_SELF: return JS_NewBool(ctx, c->state == CALLOUT_STATE_REDIRECTED_BY_SELF || c->state == CALLOUT_STATE_PREVIOUSLY_REDIRECTED_BY_SELF);
    case LOCAL_PORT: return JS_NewInt32(ctx, c->local_port);
    case REMOTE_PORT: return JS_NewInt32(ctx, c->remote_port);
    case LOCAL: return address(c->local);
    case LOCAL_BYTES: return bytes(c->local, 16);
    case REMOTE: return address(c->remote);
    case REMOTE_BYTES: return bytes(c->remote, 16);
    case REMOTE_V4: return JS_NewInt64(ctx, callout_v4(c->remote));
    case MONOTONIC: return JS_NewBigUint64(ctx, c->monotonic);
    case INTERFACE: return JS_NewInt64(ctx, c->interface_index);
    case APP: return text(c->app);
    case USER: return text(c->user);
    case HOSTNAME: return text(c->hostname);
    case RECORD: return bytes(c->record.ptr, c->record.len);
    case CONTEXT: return c->context.ptr ? bytes(c->context.ptr, c->context.len) : bytes(NULL, 0);
    case CONTEXT_SIZE: return JS_NewInt64(ctx, c->context.len);
    }
    return JS_UNDEFINED;
}

#define FIELD(name, field) JS_CGETSET_MAGIC_DEF(name, property, NULL, field)
static const JSCFunctionListEntry fields[] = {
    FIELD("layer", LAYER), FIELD("protocol", PROTOCOL), FIELD("inbound", INBOUND), FIELD("flags", FLAGS),
    FIELD("connection", CONNECTION), FIELD("filter", FILTER), FIELD("present", PRESENT), FIELD("pid", PID), FIELD("uid", UID),
    FIELD("ipVersion", VERSION), FIELD("state", STATE), FIELD("bySelf", BY_SELF), FIELD("localPort", LOCAL_PORT),
    FIELD("remotePort", REMOTE_PORT), FIELD("local", LOCAL), FIELD("localBytes", LOCAL_BYTES), FIELD("remote", REMOTE),
    FIELD("remoteBytes", REMOTE_BYTES), FIELD("remoteV4", REMOTE_V4), FIELD("monotonic", MONOTONIC), FIELD("interfaceIndex", INTERFACE),
    FIELD("app", APP), FIELD("user", USER), FIELD("hostname", HOSTNAME), FIELD("record", RECORD), FIELD("context", CONTEXT),
    FIELD("contextSize", CONTEXT_SIZE),
};

/* The host's functions. */

static JSValue failure(int64_t code) {
    switch (code) {
    case CALLOUT_ERR_DENIED: return JS_ThrowTypeError(js, "the host did not grant this capability");
    case CALLOUT_ERR_TOO_LARGE: return JS_ThrowRangeError(js, "too large for the host");
    case CALLOUT_ERR_FULL: return JS_ThrowRangeError(js, "the host has no room");
    }
    return JS_ThrowTypeError(js, "host error %d", (int)code);
}

static JSValue done(int32_t code) { return code < 0 ? failure(code) : JS_UNDEFINED; }

/* Bytes of a string or of an array of bytes. The caller frees *held. */
typedef struct {
    const uint8_t *ptr;
    size_t len;
    const char *string;
} held;

static bool hold(JSValueConst v, held *h) {
    size_t off, len, size;
    h->string = NULL;
    if (JS_IsString(v)) {
        h->string = JS_ToCStringLen(js, &h->len, v);
        h->ptr = (const uint8_t *)h->string;
        return h->string != NULL;
    }
    JSValue buffer = JS_GetTypedArrayBuffer(js, v, &off, &len, &size);
    if (JS_IsException(buffer)) {
        JS_FreeValue(js, JS_GetException(js));
        JS_ThrowTypeError(js, "expected a text or a Uint8Array");
        return false;
    }
    uint8_t *p = JS_GetArrayBuffer(js, &size, buffer);
    JS_FreeValue(js, buffer); /* The array still holds it. */
    h->ptr = p ? p + off : NULL;
    h->len = p ? len : 0;
    return true;
}

static void release(held *h) {
    if (h->string)
        JS_FreeCString(js, h->string);
}

static JSValue host_log(JSContext *ctx, JSValueConst this, int argc, JSValueConst *argv, int level) {
    (void)this;
    const char *s = argc ? JS_ToCString(ctx, argv[0]) : NULL;
    if (!s)
        return JS_EXCEPTION;
    int32_t code = callout_log(level, s, (uint32_t)strlen(s));
    JS_FreeCString(ctx, s);
    return done(code);
}

static uint8_t buffer[4096];

static JSValue host_random(JSContext *ctx, JSValueConst this, int argc, JSValueConst *argv) {
    uint32_t n = 0;
    (void)this;
    if (argc < 1 || JS_ToUint32(ctx, &n, argv[0]))
        return JS_EXCEPTION;
    if (n > sizeof buffer)
        return failure(CALLOUT_ERR_TOO_LARGE);
    int32_t code = callout_random(buffer, n);
    return code < 0 ? failure(code) : bytes(buffer, n);
}

static JSValue host_wall(JSContext *ctx, JSValueConst this, int argc, JSValueConst *argv) {
    int64_t n = callout_wall();
    (void)this, (void)argc, (void)argv;
    return n < 0 ? failure(n) : JS_NewBigInt64(ctx, n);
}

static JSValue host_get(JSContext *ctx, JSValueConst this, int argc, JSValueConst *argv) {
    held key;
    (void)ctx, (void)this;
    if (argc < 1 || !hold(argv[0], &key))
        return JS_EXCEPTION;
    int32_t n = callout_kv_get(key.ptr, (uint32_t)key.len, buffer, sizeof buffer);
    release(&key);
    if (n == CALLOUT_ERR_NOT_FOUND)
        return JS_UNDEFINED;
    return n < 0 ? failure(n) : bytes(buffer, (uint32_t)n);
}

static JSValue host_set(JSContext *ctx, JSValueConst this, int argc, JSValueConst *argv) {
    held key, value;
    uint32_t ttl = 0;
    (void)this;
    if (argc < 2 || (argc > 2 && JS_ToUint32(ctx, &ttl, argv[2])) || !hold(argv[0], &key))
        return JS_EXCEPTION;
    if (!hold(argv[1], &value)) {
        release(&key);
        return JS_EXCEPTION;
    }
    int32_t code = callout_kv_set(key.ptr, (uint32_t)key.len, value.ptr, (uint32_t)value.len, ttl);
    release(&key);
    release(&value);
    return done(code);
}

static JSValue host_delete(JSContext *ctx, JSValueConst this, int argc, JSValueConst *argv) {
    held key;
    (void)ctx, (void)this;
    if (argc < 1 || !hold(argv[0], &key))
        return JS_EXCEPTION;
    int32_t code = callout_kv_del(key.ptr, (uint32_t)key.len);
    release(&key);
    return code == CALLOUT_ERR_NOT_FOUND ? JS_UNDEFINED : done(code);
}

static JSValue host_add(JSContext *ctx, JSValueConst this, int argc, JSValueConst *argv) {
    held name;
    int64_t delta = 1;
    (void)this;
    if (argc < 1 || (argc > 1 && JS_ToInt64(ctx, &delta, argv[1])) || !hold(argv[0], &name))
        return JS_EXCEPTION;
    int32_t code = callout_metric_add(name.ptr, (uint32_t)name.len, delta);
    release(&name);
    return done(code);
}

static JSValue host_in_set(JSContext *ctx, JSValueConst this, int argc, JSValueConst *argv) {
    uint32_t n = 0;
    (void)this;
    if (argc < 1 || JS_ToUint32(ctx, &n, argv[0]))
        return JS_EXCEPTION;
    int32_t found = callout_cidr_match(n);
    return found < 0 ? failure(found) : JS_NewBool(ctx, found);
}

static JSValue host_lookup(JSContext *ctx, JSValueConst this, int argc, JSValueConst *argv) {
    uint32_t n = 0;
    (void)this;
    if (argc < 1 || JS_ToUint32(ctx, &n, argv[0]))
        return JS_EXCEPTION;
    int32_t value = callout_table_lookup(n);
    if (value == CALLOUT_ERR_NOT_FOUND)
        return JS_UNDEFINED;
    return value < 0 ? failure(value) : JS_NewInt32(ctx, value);
}

static JSValue host_names(JSContext *ctx, JSValueConst this, int argc, JSValueConst *argv) {
    (void)this, (void)argc, (void)argv;
    int32_t n = callout_dns_names(buffer, sizeof buffer);
    if (n < 0 && n != CALLOUT_ERR_NOT_FOUND)
        return failure(n);
    JSValue list = JS_NewArray(ctx);
    uint32_t count = 0;
    for (int32_t at = 0; at < n; count++) {
        int32_t end = at;
        while (end < n && buffer[end])
            end++;
        JS_SetPropertyUint32(ctx, list, count, JS_NewStringLen(ctx, (const char *)buffer + at, (size_t)(end - at)));
        at = end + 1;
    }
    return list;
}

/* What a script counts in whose coverage is measured, and where it is. */
static uint32_t counters[16384];

CALLOUT_EXPORT(callout_script_counters) uint32_t callout_script_counters(void) { return (uint32_t)(uintptr_t)counters; }

static JSValue host_counters(JSContext *ctx, JSValueConst this, int argc, JSValueConst *argv) {
    (void)this, (void)argc, (void)argv;
    return JS_NewArrayBuffer(ctx, (uint8_t *)counters, sizeof counters, NULL, NULL, false);
}

static const JSCFunctionListEntry host[] = {
    JS_CFUNC_MAGIC_DEF("debug", 1, host_log, 0), JS_CFUNC_MAGIC_DEF("log", 1, host_log, 1),
    JS_CFUNC_MAGIC_DEF("warn", 1, host_log, 2), JS_CFUNC_MAGIC_DEF("error", 1, host_log, 3),
    JS_CFUNC_DEF("random", 1, host_random), JS_CFUNC_DEF("wall", 0, host_wall),
    JS_CFUNC_DEF("get", 1, host_get), JS_CFUNC_DEF("set", 3, host_set), JS_CFUNC_DEF("delete", 1, host_delete),
    JS_CFUNC_DEF("add", 2, host_add), JS_CFUNC_DEF("inSet", 1, host_in_set), JS_CFUNC_DEF("lookup", 1, host_lookup),
    JS_CFUNC_DEF("names", 0, host_names), JS_CFUNC_DEF("counters", 0, host_counters),
};

/* Starting. */

static bool run(const char *source, size_t len, const char *name) {
    JSValue v = JS_Eval(js, source, len, name, JS_EVAL_TYPE_GLOBAL);
    bool ok = !JS_IsException(v);
    JS_FreeValue(js, v);
    return ok;
}

static void start(void) {
    js = JS_NewContext(JS_NewRuntime());
    JSValue global = JS_GetGlobalObject(js), object = JS_NewObject(js), call = JS_NewObject(js);
    JS_SetPropertyFunctionList(js, object, host, sizeof host / sizeof *host);
    JS_SetPropertyStr(js, global, "host", object);
    JS_SetPropertyFunctionList(js, call, fields, sizeof fields / sizeof *fields);
    call_object = call;
    bytes_constructor = JS_GetPropertyStr(js, global, "Uint8Array");
    action_atom = JS_NewAtom(js, "action");
    flags_atom = JS_NewAtom(js, "flags");
    port_atom = JS_NewAtom(js, "port");
    pid_atom = JS_NewAtom(js, "pid");
    address_atom = JS_NewAtom(js, "address");
    record_atom = JS_NewAtom(js, "record");
    context_atom = JS_NewAtom(js, "context");
    reason_atom = JS_NewAtom(js, "reason");
    cookie_atom = JS_NewAtom(js, "cookie");
    JS_FreeValue(js, global);
}

static const char *because(callout_bytes why) {
    reason[why.len] = 0;
    return (const char *)reason;
}

/* Hands the configuration to the script's function, if it has one. */
static const char *hand_over(JSValue global, JSValue config, bool any) {
    JSValue f = JS_GetPropertyStr(js, global, "configure");
    const char *why = NULL;
    if (JS_IsFunction(js, f)) {
        JSValue args[2] = {config, JS_NewInt64(js, callout_granted())};
        JSValue v = JS_Call(js, f, JS_UNDEFINED, 2, args);
        if (JS_IsException(v)) {
            why = because(thrown());
        } else if (JS_IsString(v)) {
            size_t n;
            const char *s = JS_ToCStringLen(js, &n, v);
            n = n < CALLOUT_MAX_REASON ? n : CALLOUT_MAX_REASON;
            memcpy(reason, s, n);
            why = because(callout_span(reason, (uint32_t)n));
            JS_FreeCString(js, s);
        }
        JS_FreeValue(js, v);
    } else if (any) {
        why = "this policy has no configuration: it defines no function configure";
    }
    JS_FreeValue(js, f);
    return why;
}

/* Takes the script, and what is its own, out of the configuration. */
static const char *unpack(const uint8_t *config, uint32_t len, JSValue *source, JSValue *own) {
    static const char *none = "there is no script: expected the configuration {\"script\": TEXT}";
    char *copy = malloc(len + 1); /* The parser looks at the byte behind. */
    memcpy(copy, config, len);
    copy[len] = 0;
    JSValue v = JS_ParseJSON(js, copy, len, "configuration");
    free(copy);
    if (JS_IsException(v)) {
        JS_FreeValue(js, JS_GetException(js));
        return none;
    }
    if (!JS_IsObject(v))
        return none;
    *source = JS_GetPropertyStr(js, v, "script");
    JSValue rest = JS_GetPropertyStr(js, v, "config");
    *own = JS_IsUndefined(rest) ? JS_UNDEFINED : JS_JSONStringify(js, rest, JS_UNDEFINED, JS_UNDEFINED);
    JS_FreeValue(js, rest);
    JS_FreeValue(js, v);
    return JS_IsString(*source) ? NULL : none;
}

const char *callout_configure(const uint8_t *config, uint32_t len) {
    start();
    if (!run(callout_prelude, strlen(callout_prelude), "prelude.js"))
        return because(thrown());
    JSValue own = JS_UNDEFINED;
    if (script.length) {
        own = JS_NewStringLen(js, (const char *)config, len);
        if (!run(script.text, script.length, "policy.js"))
            return because(thrown());
    } else {
        JSValue source = JS_UNDEFINED;
        const char *why = unpack(config, len, &source, &own);
        if (why)
            return why;
        size_t n;
        const char *s = JS_ToCStringLen(js, &n, source);
        if (!run(s, n, "policy.js"))
            return because(thrown());
        JS_FreeCString(js, s);
        JS_FreeValue(js, source);
        len = JS_IsString(own);
    }
    JSValue global = JS_GetGlobalObject(js);
    classify = JS_GetPropertyStr(js, global, "classify");
    notified = JS_GetPropertyStr(js, global, "notify");
    const char *why = JS_IsFunction(js, classify) ? hand_over(global, own, len > 0) : "the script defines no function classify";
    JS_FreeValue(js, own);
    JS_FreeValue(js, global);
    return why;
}

/* Deciding. */

/* Copies a property's bytes; what is too long keeps its length. */
static bool copy(JSValueConst v, JSAtom name, uint8_t *to, uint32_t room, callout_bytes *out) {
    JSValue x = JS_GetProperty(js, v, name);
    held h;
    bool ok = true;
    if (!JS_IsUndefined(x)) {
        if ((ok = hold(x, &h))) {
            memcpy(to, h.ptr, h.len < room ? h.len : room);
            *out = callout_span(to, (uint32_t)h.len);
            release(&h);
        }
    }
    JS_FreeValue(js, x);
    return ok;
}

static bool number(JSValueConst v, JSAtom name, uint32_t *out) {
    JSValue x = JS_GetProperty(js, v, name);
    bool ok = JS_IsUndefined(x) || !JS_ToUint32(js, out, x);
    JS_FreeValue(js, x);
    return ok;
}

/* Reads a cookie: a number or a BigInt. */
static bool wide(JSValueConst v, JSAtom name, uint64_t *out) {
    JSValue x = JS_GetProperty(js, v, name);
    int64_t n = 0;
    bool ok = JS_IsUndefined(x) || !(JS_IsBigInt(js, x) ? JS_ToBigInt64(js, &n, x) : JS_ToInt64(js, &n, x));
    JS_FreeValue(js, x);
    *out = (uint64_t)n;
    return ok;
}

/* Reads where to: a text, or 4 or 16 bytes. */
static bool where_to(JSValueConst v, callout_verdict *out) {
    JSValue x = JS_GetProperty(js, v, address_atom);
    held h;
    bool ok = hold(x, &h);
    if (ok) {
        char s[INET6_ADDRSTRLEN + 1] = {0};
        uint8_t four[4];
        if (h.string && h.len < sizeof s)
            memcpy(s, h.ptr, h.len);
        if (h.string ? inet_pton(AF_INET, s, four) == 1 : h.len == 4 && memcpy(four, h.ptr, 4)) {
            callout_verdict to = callout_redirect4(four[0], four[1], four[2], four[3], out->port, out->pid);
            memcpy(out->address, to.address, 16);
            out->ip_version = 4;
        } else if (h.string ? inet_pton(AF_INET6, s, out->address) == 1 : h.len == 16 && memcpy(out->address, h.ptr, 16)) {
            out->ip_version = 6;
        } else {
            JS_ThrowTypeError(js, "redirect: expected an address, as a text or as 4 or 16 bytes");
            ok = false;
        }
        release(&h);
    }
    JS_FreeValue(js, x);
    return ok;
}

static callout_verdict read_verdict(JSValueConst v) {
    callout_verdict out = {0};
    uint32_t action = 0, flags = 0, port = 0, pid = 0;
    if (!JS_IsObject(v))
        return out; /* no verdict */
    if (!number(v, action_atom, &action) || !number(v, flags_atom, &flags) || !number(v, port_atom, &port) || !number(v, pid_atom, &pid) ||
        !wide(v, cookie_atom, &out.cookie))
        return error_of(thrown());
    if (port > 65535)
        return callout_error("redirect: the port is over 65535");
    out.action = (uint16_t)action;
    out.flags = (uint16_t)flags;
    out.port = (uint16_t)port;
    out.pid = pid;
    if ((action == CALLOUT_ACTION_REDIRECT && !where_to(v, &out)) || !copy(v, record_atom, record, sizeof record, &out.record) ||
        !copy(v, context_atom, context, sizeof context, &out.context) || !copy(v, reason_atom, reason, sizeof reason, &out.reason))
        return error_of(thrown());
    if (out.reason.len > sizeof reason)
        out.reason.len = sizeof reason;
    return out;
}

callout_verdict callout_decide(const callout_call *call) {
    if (!js)
        return callout_error("the policy was not configured");
    current = call;
    JSValue v = JS_Call(js, classify, JS_UNDEFINED, 1, &call_object);
    current = NULL;
    callout_verdict out = JS_IsException(v) ? error_of(thrown()) : read_verdict(v);
    JS_FreeValue(js, v);
    return out;
}

const char *callout_notified(const callout_event *event) {
    if (!js || !JS_IsFunction(js, notified))
        return callout_no_events;
    JSValue e = JS_NewObject(js);
    JS_SetPropertyStr(js, e, "kind", JS_NewInt64(js, event->kind));
    JS_SetPropertyStr(js, e, "layer", JS_NewInt32(js, event->layer));
    JS_SetPropertyStr(js, e, "filter", JS_NewBigUint64(js, event->filter));
    JS_SetPropertyStr(js, e, "connection", JS_NewBigUint64(js, event->connection));
    JS_SetPropertyStr(js, e, "cookie", JS_NewBigUint64(js, event->cookie));
    JSValue v = JS_Call(js, notified, JS_UNDEFINED, 1, &e);
    const char *why = JS_IsException(v) ? because(thrown()) : NULL;
    JS_FreeValue(js, v);
    JS_FreeValue(js, e);
    return why;
}

/* Values that point at each other in a circle are freed here, off the path of
 * decisions. */
CALLOUT_EXPORT(callout_idle) int32_t callout_idle(int32_t ms) {
    (void)ms;
    if (js)
        JS_RunGC(JS_GetRuntime(js));
    return 0;
}
