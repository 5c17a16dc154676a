/* A native test is the host: it defines the functions that its callout uses. */
#define CALLOUT_REQUIRED (CALLOUT_CAP_TABLES | CALLOUT_CAP_METRIC)
#include "callout.h"

#include <stdio.h>

callout_verdict callout_decide(const callout_call *call) {
    (void)call;
    if (callout_table_lookup(1) == 7 && callout_granted() == CALLOUT_REQUIRED)
        return callout_permit();
    callout_metric_add("refused", 7, 1);
    return callout_block("not in the table");
}

const char *callout_configure(const uint8_t *config, uint32_t len) {
    (void)config;
    return len ? "this callout has no configuration" : NULL;
}

static int32_t found;
static int64_t refused;

int32_t callout_table_lookup(uint32_t table) { return table == 1 ? found : CALLOUT_ERR_NOT_FOUND; }

int32_t callout_metric_add(const void *name, uint32_t len, int64_t delta) {
    (void)name, (void)len;
    refused += delta;
    return 0;
}

uint32_t callout_granted(void) { return CALLOUT_REQUIRED; }

static callout_call call;

int main(void) {
    int ok = callout_configure(NULL, 0) == NULL && callout_decide(&call).action == CALLOUT_ACTION_BLOCK && refused == 1;
    found = 7;
    ok = ok && callout_decide(&call).action == CALLOUT_ACTION_PERMIT && refused == 1;
    puts(ok ? "ok" : "FAIL");
    return !ok;
}
