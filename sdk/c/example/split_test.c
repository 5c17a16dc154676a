/* cc -I.. split_test.c -o split_test && ./split_test */
#include "split.c"

#include <stdio.h>
#include <string.h>

static int failures;

static void check(int ok, const char *what) {
    if (!ok) {
        printf("FAIL %s\n", what);
        failures++;
    }
}

static const char *configure(const char *text) { return callout_configure((const uint8_t *)text, (uint32_t)strlen(text)); }

static const struct {
    const char *name;
    uint8_t protocol, ip_version, state, address[4];
    uint16_t port;
    const char *app;
    uint16_t action;
} cases[] = {
    {"a program of the system is redirected", 6, 4, 0, {93, 184, 216, 34}, 443, "/usr/bin/curl", CALLOUT_ACTION_REDIRECT},
    {"a network on the list is not", 6, 4, 0, {198, 51, 100, 7}, 443, "/usr/bin/curl", CALLOUT_ACTION_PERMIT},
    {"nor another program", 6, 4, 0, {93, 184, 216, 34}, 443, "/opt/browser", CALLOUT_ACTION_PERMIT},
    {"nor one whose name only begins so", 6, 4, 0, {93, 184, 216, 34}, 443, "/usr/binary", CALLOUT_ACTION_PERMIT},
    {"nor another port", 6, 4, 0, {93, 184, 216, 34}, 80, "/usr/bin/curl", CALLOUT_ACTION_PERMIT},
    {"nor UDP", 17, 4, 0, {93, 184, 216, 34}, 443, "/usr/bin/curl", CALLOUT_ACTION_PERMIT},
    {"nor IPv6", 6, 6, 0, {0}, 443, "/usr/bin/curl", CALLOUT_ACTION_PERMIT},
    {"but a dual-stack socket is", 6, 6, 0, {93, 184, 216, 34}, 443, "/usr/bin/curl", CALLOUT_ACTION_REDIRECT},
    {"if the network is not on the list", 6, 6, 0, {198, 51, 100, 7}, 443, "/usr/bin/curl", CALLOUT_ACTION_PERMIT},
    {"nor the proxy's own connection", 6, 4, CALLOUT_STATE_REDIRECTED_BY_SELF, {93, 184, 216, 34}, 443, "/usr/bin/curl", CALLOUT_ACTION_PERMIT},
};

int main(void) {
    check(configure("proxy 8443 77\n198.51.100.0/24\n203.0.113.0/25\n") == NULL, "a configuration");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t local[16] = {0}, remote[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
        callout_call call = {0};
        memcpy(remote + 12, cases[i].address, 4);
        if (!cases[i].address[0])
            memcpy(remote, "\x20\x01\x0d\xb8\0\0\0\0\0\0\0", 12);
        call.protocol = cases[i].protocol;
        call.ip_version = cases[i].ip_version;
        call.state = cases[i].state;
        call.local = local;
        call.remote = remote;
        call.remote_port = cases[i].port;
        call.app = callout_text(cases[i].app);
        callout_verdict v = callout_decide(&call);
        check(v.action == cases[i].action, cases[i].name);
        if (v.action == CALLOUT_ACTION_REDIRECT)
            check(v.port == 8443 && v.pid == 77 && v.record.len == 48 && !memcmp(v.record.ptr + 4, remote, 16), "where to");
    }
    for (uint8_t state = 0; state < 4; state++) {
        callout_call call = {.state = state};
        check(callout_by_self(&call) == (state == 1 || state == 3), "whose connection it is");
    }
    check(configure("") != NULL, "no proxy");
    check(configure("proxy 8443 0") != NULL, "no process");
    check(configure("proxy 65536 77") != NULL, "a port that is none");
    check(configure("proxy 8443 77\n198.51.100/24") != NULL, "a network that is none");
    check(configure("proxy 8443 77\n198.51.100.256/24") != NULL, "a number that is too large");
    check(configure("proxy 8443 77\n198.51.100.0/33") != NULL, "a length that is too large");
    if (!failures)
        printf("ok\n");
    return failures != 0;
}
