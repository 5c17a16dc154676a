/* cc -I../../sdk/c sni-router_test.c -o test && ./test */
#include "sni-router.c"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures;

static void check(int ok, const char *what) {
    if (!ok) {
        printf("FAIL %s\n", what);
        failures++;
    }
}

static const char *configure(const char *text) { return callout_configure((const uint8_t *)text, (uint32_t)strlen(text)); }

static const char good[] = "{\"peek\": {\"proxy\": \"127.0.0.1:9\", \"pid\": 7}, \"otherwise\": \"block\", \"routes\": [\n"
                           "{\"names\": [\"A.example\", \"*.b.example\"], \"proxy\": \"10.1.2.3:443\", \"pid\": 8},"
                           "{\"names\": [\"c.ex\\u0061mple\"], \"action\": \"permit\"}]}";

static const char any[] = "{\"peek\": {\"proxy\": \"127.0.0.1:9\", \"pid\": 7}, \"otherwise\": \"block\", \"routes\": ["
                          "{\"names\": [\"a.example\"], \"action\": \"permit\"}, {\"names\": [\"*\"], \"proxy\": \"10.1.2.4:444\", \"pid\": 9}]}";

static callout_verdict decide(uint16_t layer, uint8_t state, uint8_t record, const char *name) {
    static uint8_t local[16], remote[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 198, 51, 100, 7};
    callout_call call = {0};
    call.layer = layer;
    call.state = state;
    call.protocol = 6;
    call.ip_version = 4;
    call.local = local;
    call.remote = remote;
    call.remote_port = 443;
    call.hostname = callout_text(name);
    call.record = callout_span(&record, record ? 1 : 0);
    return callout_decide(&call);
}

static const struct {
    const char *name;
    uint16_t where, whether; /* what is answered at the two layers */
} named[] = {
    {"a.example", CALLOUT_ACTION_REDIRECT, CALLOUT_ACTION_CONTINUE},
    {"x.b.example", CALLOUT_ACTION_REDIRECT, CALLOUT_ACTION_CONTINUE},
    {"c.example", CALLOUT_ACTION_CONTINUE, CALLOUT_ACTION_CONTINUE},
    {"b.example", CALLOUT_ACTION_CONTINUE, CALLOUT_ACTION_BLOCK},
    {"xa.example", CALLOUT_ACTION_CONTINUE, CALLOUT_ACTION_BLOCK},
    {"a.example.org", CALLOUT_ACTION_CONTINUE, CALLOUT_ACTION_BLOCK},
    {"", CALLOUT_ACTION_CONTINUE, CALLOUT_ACTION_BLOCK},
};

static const char *const wrong[][2] = {
    {"", "the configuration: expected keys and values"},
    {"{}", "peek: required, {proxy: \"${proxy:ID}\", pid: \"${pid}\"}"},
    {"{\"route\": []}", "the configuration has no key \"route\""},
    {"{\"routes\": [{\"names\": []}]}", "routes[0].names: at least one is required"},
    {"{\"routes\": [{\"names\": [\"a\", \"a b\"]}]}", "routes[0].names[1]: no host name such as example.org or *.example.org"},
    {"{\"routes\": [{\"names\": [\"*a\"]}]}", "routes[0].names[0]: no host name such as example.org or *.example.org"},
    {"{\"routes\": [{\"names\": [\"**\"]}]}", "routes[0].names[0]: no host name such as example.org or *.example.org"},
    {"{\"routes\": [{\"names\": [\"*.\"]}]}", "routes[0].names[0]: no host name such as example.org or *.example.org"},
    {"{\"routes\": [{\"names\": [\"a\"], \"proxy\": \"127.0.0.1:0\"}]}", "routes[0].proxy: no IPv4 address and port"},
    {"{\"routes\": [{\"names\": [\"a\"], \"proxy\": \"127.0.0.256:1\"}]}", "routes[0].proxy: no IPv4 address and port"},
    {"{\"routes\": [{\"names\": [\"a\"], \"proxy\": \"127.0.0.1:1\"}]}", "routes[0].pid: required with proxy"},
    {"{\"routes\": [{\"names\": [\"a\"], \"pid\": 1}]}", "routes[0].proxy: required with pid"},
    {"{\"routes\": [{\"names\": [\"a\"], \"proxy\": \"127.0.0.1:1\", \"pid\": 1, \"action\": \"block\"}]}", "routes[0].action: a route has either a proxy or an action"},
    {"{\"routes\": [{\"names\": [\"a\"], \"acton\": 1}]}", "routes[0] has no key \"acton\""},
    {"{\"otherwise\": \"deny\"}", "otherwise: expected permit or block"},
    {"{\"peek\": {\"pid\": 0}}", "peek.pid: expected the proxy's process, ${pid}"},
    {"{\"peek\": {\"port\": 0}}", "peek: its keys are proxy and pid"},
    {"{\"otherwise\": \"block\"", "the configuration is no JSON that this callout reads"},
    {"{\"otherwise\": \"block\"} x", "the configuration is no JSON that this callout reads"},
};

/* Every configuration that is cut or changed somewhere is read or refused. Each is
 * a block of its own, so that a sanitizer sees what is read outside of it. */
static void hostile(void) {
    uint32_t refused = 0, len = sizeof good - 1;
    for (uint32_t at = 0; at < len; at++)
        for (int c = -1; c < 256; c++) {
            uint32_t n = c < 0 ? at : len;
            uint8_t *text = malloc(n ? n : 1);
            memcpy(text, good, n);
            if (c >= 0)
                text[at] = (uint8_t)c;
            refused += callout_configure(text, n) != NULL;
            free(text);
        }
    check(refused > 100 * len, "most of them are refused");
}

int main(void) {
    check(configure(good) == NULL, "a configuration");
    callout_verdict v = decide(66, CALLOUT_STATE_NOT_REDIRECTED, 0, "");
    check(v.action == CALLOUT_ACTION_REDIRECT && v.port == 9 && v.pid == 7 && v.record.ptr[0] == PEEKED, "a new connection is peeked at");
    check(v.context.len == 128 && !memcmp(v.context.ptr, "\2\0\1\273\306\63\144\7", 8), "the proxy learns where it was going");
    for (size_t i = 0; i < sizeof named / sizeof *named; i++) {
        check(decide(66, CALLOUT_STATE_REDIRECTED_BY_SELF, PEEKED, named[i].name).action == named[i].where, named[i].name);
        check(decide(48, CALLOUT_STATE_REDIRECTED_BY_SELF, PEEKED, named[i].name).action == named[i].whether, named[i].name);
    }
    v = decide(66, CALLOUT_STATE_REDIRECTED_BY_SELF, PEEKED, "a.example");
    check(v.port == 443 && v.pid == 8 && v.address[12] == 10 && v.address[15] == 3 && v.record.ptr[0] == ROUTED, "to the route's proxy");
    check(decide(66, CALLOUT_STATE_REDIRECTED_BY_SELF, ROUTED, "a.example").action == CALLOUT_ACTION_CONTINUE, "the route's proxy passes");
    check(decide(48, CALLOUT_STATE_REDIRECTED_BY_SELF, ROUTED, "").action == CALLOUT_ACTION_CONTINUE, "wherever it connects");
    check(decide(66, CALLOUT_STATE_REDIRECTED_BY_OTHER, 0, "").action == CALLOUT_ACTION_CONTINUE, "another callout's is left alone");
    check(configure(any) == NULL, "a route of every name");
    v = decide(66, CALLOUT_STATE_REDIRECTED_BY_SELF, PEEKED, "b.example");
    check(v.action == CALLOUT_ACTION_REDIRECT && v.port == 444 && v.pid == 9, "a name without a route before");
    check(decide(66, CALLOUT_STATE_REDIRECTED_BY_SELF, PEEKED, "a.example").action == CALLOUT_ACTION_CONTINUE, "the first route that fits counts");
    check(decide(48, CALLOUT_STATE_REDIRECTED_BY_SELF, PEEKED, "").action == CALLOUT_ACTION_BLOCK, "no name is no name");
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const char *why = configure(wrong[i][0]);
        check(why && !strcmp(why, wrong[i][1]), why ? why : wrong[i][1]);
    }
    hostile();
    if (!failures)
        printf("ok\n");
    return failures != 0;
}
