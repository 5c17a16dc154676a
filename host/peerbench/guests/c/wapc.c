/* The guest of waPC: https://wapc.io/docs/spec. */
#include "bytes.h"

IMPORT("wapc", __guest_request) void guest_request(void *operation, void *payload);
IMPORT("wapc", __guest_response) void guest_response(const void *ptr, uint32_t len);

static uint8_t operation[16], payload[4096], out[ANSWER];

EXPORT(__guest_call) uint32_t guest_call(uint32_t operation_len, uint32_t payload_len) {
    if (operation_len > sizeof operation || payload_len > sizeof payload)
        return 0;
    guest_request(operation, payload);
    if (operation_len == 9) /* configure */
        return configure(payload, payload_len);
    if (payload_len < HEADER)
        return 0;
    guest_response(out, answer(payload, payload_len, out));
    return 1;
}
