/* A proxy in C: descriptor 3 is a connection that it accepted. */
#include "calloutd_client.h"

#include <arpa/inet.h>
#include <stdio.h>

static void say(const char *what, uint32_t status, const calloutd_client *c) {
    printf("%s 0x%08X %s %s\n", what, (unsigned)status, c->rule[0] ? c->rule : "-", c->reason[0] ? c->reason : "-");
}

static void hex(const uint8_t *data, size_t size) {
    size_t i;
    for (i = 0; i < size; i++)
        printf("%02x", data[i]);
    printf("\n");
}

int main(int argc, char **argv) {
    calloutd_client c;
    struct sockaddr_storage to;
    uint8_t records[1024], context[4096];
    char text[INET6_ADDRSTRLEN];
    size_t size = 1, context_size = sizeof context, records_size = sizeof records;
    int out = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (argc != 2 || !calloutd_init(&c, argv[1]) || out < 0)
        return 1;
    say("probe", calloutd_query_records(&c, 3, records, &size), &c);
    printf("size %u\n", (unsigned)size);
    say("records", calloutd_query_records(&c, 3, records, &records_size), &c);
    hex(records, records_size);
    say("context", calloutd_query_context(&c, 3, context, &context_size), &c);
    hex(context, context_size);
    say("original", calloutd_query_original_destination(&c, 3, &to), &c);
    if (to.ss_family == AF_INET) {
        struct sockaddr_in *a = (struct sockaddr_in *)&to;
        printf("%s:%u\n", inet_ntop(AF_INET, &a->sin_addr, text, sizeof text), ntohs(a->sin_port));
    } else {
        struct sockaddr_in6 *a = (struct sockaddr_in6 *)&to;
        printf("[%s%%%u]:%u\n", inet_ntop(AF_INET6, &a->sin6_addr, text, sizeof text), (unsigned)a->sin6_scope_id, ntohs(a->sin6_port));
    }
    say("set", calloutd_set_records(&c, out, records, records_size), &c);
    records[20] ^= 1;
    say("forged", calloutd_set_records(&c, out, records, records_size), &c);
    calloutd_close(&c);
    size = sizeof context;
    say("unconnected", calloutd_query_context(&c, out, context, &size), &c);
    say("stdin", calloutd_query_context(&c, 0, context, &size), &c);
    say("closed", calloutd_query_context(&c, 99, context, &size), &c);
    say("again", calloutd_query_original_destination(&c, 3, &to), &c);
    calloutd_close(&c);
    if (!calloutd_init(&c, "/nonexistent/socket"))
        return 1;
    say("nobody", calloutd_query_context(&c, 3, context, &size), &c);
    return 0;
}
