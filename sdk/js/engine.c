/*
 * A callout that runs a policy in JavaScript: QuickJS behind the guest ABI. The
 * script stands in the module (sdk/project puts it there) or comes as
 * configuration, {"script": TEXT, "config": ...}.
 */
#include <stdlib.h>
#include <string.h>

#define CALLOUT_OPTIONAL 0xff /* The script may use all of the host; what is not granted throws. */
#define CALLOUT_MAX_CONFIG (512 << 10)
#define CALLOUT_NOTIFY
#include "value.h"

#include "answer.h"
#include "call.h"
#include "host.h"

extern const char callout_prelude[];

/* What sdk/project looks for: it writes a script to text, and its length. */
#define SCRIPT_CAPACITY (512 << 10)
static char script_text[SCRIPT_CAPACITY];
static volatile struct {
    char mark[16];
    char *text;
    uint32_t capacity, length;
} script = {"callout-script-1", script_text, SCRIPT_CAPACITY, 0};

static JSValue classify, notified, call_object;

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
    name_atoms();
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
