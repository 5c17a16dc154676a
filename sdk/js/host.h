/* The host's functions as a script calls them. An argument that is left out is there, as
 * undefined: QuickJS sees to that, up to the length in the table. */
#include <string.h>

#include "value.h"

static JSValue failure(int64_t code) {
    switch (code) {
    case CALLOUT_ERR_DENIED: return JS_ThrowTypeError(js, "the host did not grant this capability");
    case CALLOUT_ERR_TOO_LARGE: return JS_ThrowRangeError(js, "too large for the host");
    case CALLOUT_ERR_FULL: return JS_ThrowRangeError(js, "the host has no room");
    }
    return JS_ThrowTypeError(js, "host error %d", (int)code);
}

static JSValue done(int32_t code) { return code < 0 ? failure(code) : JS_UNDEFINED; }

static JSValue host_log(JSContext *ctx, JSValueConst this, int argc, JSValueConst *argv, int level) {
    (void)this, (void)argc;
    const char *s = JS_ToCString(ctx, argv[0]);
    if (!s)
        return JS_EXCEPTION;
    int32_t code = callout_log(level, s, (uint32_t)strlen(s));
    JS_FreeCString(ctx, s);
    return done(code);
}

static uint8_t buffer[4096];

static JSValue host_random(JSContext *ctx, JSValueConst this, int argc, JSValueConst *argv) {
    uint32_t n = 0;
    (void)ctx, (void)this, (void)argc;
    if (!whole(argv[0], "random", &n))
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
    (void)ctx, (void)this, (void)argc;
    if (!hold(argv[0], &key))
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
    (void)ctx, (void)this, (void)argc;
    if ((!JS_IsUndefined(argv[2]) && !whole(argv[2], "seconds", &ttl)) || !hold(argv[0], &key))
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
    (void)ctx, (void)this, (void)argc;
    if (!hold(argv[0], &key))
        return JS_EXCEPTION;
    int32_t code = callout_kv_del(key.ptr, (uint32_t)key.len);
    release(&key);
    return code == CALLOUT_ERR_NOT_FOUND ? JS_UNDEFINED : done(code);
}

static JSValue host_add(JSContext *ctx, JSValueConst this, int argc, JSValueConst *argv) {
    held name;
    int64_t delta = 1;
    (void)this, (void)argc;
    if (!JS_IsString(argv[0]))
        return JS_ThrowTypeError(ctx, "add: expected a text");
    if ((!JS_IsUndefined(argv[1]) && !wide(argv[1], "add", &delta)) || !hold(argv[0], &name))
        return JS_EXCEPTION;
    int32_t code = callout_metric_add(name.ptr, (uint32_t)name.len, delta);
    release(&name);
    return done(code);
}

static JSValue host_in_set(JSContext *ctx, JSValueConst this, int argc, JSValueConst *argv) {
    uint32_t n = 0;
    (void)this, (void)argc;
    if (!whole(argv[0], "inSet", &n))
        return JS_EXCEPTION;
    int32_t found = callout_cidr_match(n);
    return found < 0 ? failure(found) : JS_NewBool(ctx, found);
}

static JSValue host_lookup(JSContext *ctx, JSValueConst this, int argc, JSValueConst *argv) {
    uint32_t n = 0;
    (void)this, (void)argc;
    if (!whole(argv[0], "lookup", &n))
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
