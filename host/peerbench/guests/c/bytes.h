/* The request as bytes, for the peers that hand over bytes: 32 of header, then
 * the program. The answer: redirect or not, the proxy, the record. */
#include "decision.h"

enum { HEADER = 32, ANSWER = 56 };

static uint32_t answer(const uint8_t *b, uint32_t len, uint8_t out[ANSWER]) {
    struct request q;
    q.protocol = b[0];
    q.version = b[1];
    __builtin_memcpy(&q.port, b + 2, 2);
    __builtin_memcpy(&q.pid, b + 4, 4);
    __builtin_memcpy(&q.connection, b + 8, 8);
    __builtin_memcpy(q.remote, b + 16, 16);
    q.app = b + HEADER;
    q.app_len = len - HEADER;
    out[0] = decide(&q);
    if (!out[0])
        return 1;
    out[1] = 0;
    __builtin_memcpy(out + 2, &config.port, 2);
    __builtin_memcpy(out + 4, &config.pid, 4);
    __builtin_memcpy(out + 8, record, sizeof record);
    return ANSWER;
}
