/* A script's answer, or its exception, as a verdict. */
#include <arpa/inet.h>
#include <string.h>

#include "value.h"

static JSAtom action_atom, flags_atom, port_atom, pid_atom, address_atom, record_atom, context_atom, reason_atom, cookie_atom;

static void name_atoms(void) {
    action_atom = JS_NewAtom(js, "action");
    flags_atom = JS_NewAtom(js, "flags");
    port_atom = JS_NewAtom(js, "port");
    pid_atom = JS_NewAtom(js, "pid");
    address_atom = JS_NewAtom(js, "address");
    record_atom = JS_NewAtom(js, "record");
    context_atom = JS_NewAtom(js, "context");
    reason_atom = JS_NewAtom(js, "reason");
    cookie_atom = JS_NewAtom(js, "cookie");
}

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

/* Copies a property's bytes; what is too long keeps its length. */
static bool copy(JSValueConst v, JSAtom name, uint8_t *to, uint32_t room, callout_bytes *out) {
    JSValue x = JS_GetProperty(js, v, name);
    held h;
    bool ok = true;
    if (name == reason_atom && !JS_IsUndefined(x) && !JS_IsString(x)) {
        JS_ThrowTypeError(js, "reason: expected a text");
        ok = false;
    } else if (!JS_IsUndefined(x)) {
        if ((ok = hold(x, &h))) {
            memcpy(to, h.ptr, h.len < room ? h.len : room);
            *out = callout_span(to, (uint32_t)h.len);
            release(&h);
        }
    }
    JS_FreeValue(js, x);
    return ok;
}

static bool number(JSValueConst v, JSAtom name, const char *what, uint32_t *out) {
    JSValue x = JS_GetProperty(js, v, name);
    bool ok = whole(x, what, out);
    JS_FreeValue(js, x);
    return ok;
}

static bool read_cookie(JSValueConst v, uint64_t *out) {
    JSValue x = JS_GetProperty(js, v, cookie_atom);
    int64_t n = 0;
    bool ok = JS_IsUndefined(x) || wide(x, "withCookie", &n);
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
    if (!number(v, action_atom, "action", &action) || !number(v, flags_atom, "flags", &flags) || !read_cookie(v, &out.cookie))
        return error_of(thrown());
    bool redirects = action == CALLOUT_ACTION_REDIRECT;
    if (redirects && (!number(v, port_atom, "redirect: port", &port) || !number(v, pid_atom, "redirect: pid", &pid)))
        return error_of(thrown());
    if (port > 65535)
        return callout_error("redirect: the port is over 65535");
    out.action = (uint16_t)action;
    out.flags = (uint16_t)flags;
    out.port = (uint16_t)port;
    out.pid = pid;
    if ((redirects && !where_to(v, &out)) || !copy(v, record_atom, record, sizeof record, &out.record) ||
        !copy(v, context_atom, context, sizeof context, &out.context) || !copy(v, reason_atom, reason, sizeof reason, &out.reason))
        return error_of(thrown());
    if (out.reason.len > sizeof reason)
        out.reason.len = sizeof reason;
    return out;
}
