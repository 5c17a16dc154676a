/* The call as a script sees it. */
#include <arpa/inet.h>
#include <string.h>

#include "value.h"

static const callout_call *current; /* NULL between calls: a call that was kept is dead */

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
