// Fails where its lines are known: by a trap for port 2, by an endless loop for
// port 3, and permits else.
#include "callout.h"

const char *callout_configure(const uint8_t *config, uint32_t len) { return config[len] ? "" : NULL; }

static volatile uint32_t zero;

__attribute__((noinline)) static uint32_t divide(uint32_t n) {
    return n / zero; // line 10
}

__attribute__((noinline)) static void spin(void) {
    for (;;)
        zero = zero; // line 15
}

__attribute__((noinline)) static callout_verdict parse(const callout_call *call) {
    if (call->remote_port == 2)
        zero = divide(4);
    if (call->remote_port == 3)
        spin();
    return callout_permit();
}

callout_verdict callout_decide(const callout_call *call) { return parse(call); }
