/*
 * calloutd_client.h: a proxy asks calloutd whom a redirected connection was for.
 * Linux, C99 or C++, no libraries. The wire format is in wsk/remote/README.md.
 *
 *     #include "calloutd_client.h"
 *
 *     calloutd_client c;
 *     calloutd_init(&c, "/run/calloutd/remote.sock");
 *     int conn = accept(listener, NULL, NULL);
 *
 *     uint8_t records[1024];
 *     size_t size = sizeof records;
 *     uint32_t st = calloutd_query_records(&c, conn, records, &size);
 *     if (st == CALLOUTD_STATUS_NOT_FOUND)
 *         ...                      it was not redirected: nobody's connection
 *     struct sockaddr_storage to;
 *     st = calloutd_query_original_destination(&c, conn, &to);
 *
 *     int out = socket(to.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
 *     st = calloutd_set_records(&c, out, records, size);      before connect()
 *
 * The socket itself is passed: it is the credential, and what the answer is about.
 * The caller keeps it. Functions return an NTSTATUS; after a failure c->rule and
 * c->reason say why. A client is for one thread at a time.
 */
#ifndef CALLOUTD_CLIENT_H
#define CALLOUTD_CLIENT_H

#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define CALLOUTD_STATUS_SUCCESS 0x00000000u
#define CALLOUTD_STATUS_INVALID_HANDLE 0xC0000008u
#define CALLOUTD_STATUS_INVALID_PARAMETER 0xC000000Du
#define CALLOUTD_STATUS_INVALID_DEVICE_REQUEST 0xC0000010u
#define CALLOUTD_STATUS_ACCESS_DENIED 0xC0000022u
#define CALLOUTD_STATUS_BUFFER_TOO_SMALL 0xC0000023u
#define CALLOUTD_STATUS_INSUFFICIENT_RESOURCES 0xC000009Au
#define CALLOUTD_STATUS_DEVICE_NOT_READY 0xC00000A3u /* no answer: errno says why */
#define CALLOUTD_STATUS_IO_TIMEOUT 0xC00000B5u
#define CALLOUTD_STATUS_NOT_SUPPORTED 0xC00000BBu
#define CALLOUTD_STATUS_CANCELLED 0xC0000120u
#define CALLOUTD_STATUS_NOT_FOUND 0xC0000225u

enum {
    CALLOUTD_HEADER = 24,
    CALLOUTD_MAX_PAYLOAD = 4096, /* the longest context */
    CALLOUTD_ADDRESS = 24
};

typedef struct calloutd_client {
    struct sockaddr_un path;
    int fd; /* -1: not connected */
    uint32_t last;
    int timeout; /* seconds that one answer may take */
    char rule[32];
    char reason[512];
} calloutd_client;

/* calloutd_init prepares a client; the first call connects. False: the path is too
 * long. */
static inline int calloutd_init(calloutd_client *c, const char *path) {
    memset(c, 0, sizeof *c);
    c->fd = -1;
    c->timeout = 15;
    c->path.sun_family = AF_UNIX;
    if (strlen(path) >= sizeof c->path.sun_path)
        return 0;
    memcpy(c->path.sun_path, path, strlen(path));
    return 1;
}

/* calloutd_close closes the connection. The next call connects again. */
static inline void calloutd_close(calloutd_client *c) {
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
}

static inline uint8_t *calloutd_put_(uint8_t *at, uint32_t v, int bytes) {
    for (; bytes > 0; bytes--, v >>= 8)
        *at++ = (uint8_t)v;
    return at;
}

static inline uint32_t calloutd_get_(const uint8_t *at, int bytes) {
    uint32_t v = 0;
    while (bytes-- > 0)
        v = v << 8 | at[bytes];
    return v;
}

static inline void calloutd_text_(char *to, size_t room, const uint8_t *from, size_t n) {
    if (n >= room)
        n = room - 1;
    memcpy(to, from, n);
    to[n] = 0;
}

static inline uint32_t calloutd_fail_(calloutd_client *c, uint32_t status, const char *reason) {
    c->rule[0] = 0;
    calloutd_text_(c->reason, sizeof c->reason, (const uint8_t *)reason, strlen(reason));
    return status;
}

static inline int calloutd_connect_(calloutd_client *c) {
    struct timeval t;
    int saved;
    t.tv_sec = c->timeout;
    t.tv_usec = 0;
    c->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        return 0;
    if (setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t) == 0 && setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t) == 0 &&
        connect(c->fd, (const struct sockaddr *)&c->path, sizeof c->path) == 0)
        return 1;
    saved = errno;
    calloutd_close(c);
    errno = saved;
    return 0;
}

/* calloutd_send_ sends a message with the descriptor that it is about. */
static inline int calloutd_send_(calloutd_client *c, uint8_t *message, size_t size, int sock) {
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec part;
    struct msghdr m;
    ssize_t n;
    memset(&control, 0, sizeof control);
    memset(&m, 0, sizeof m);
    part.iov_base = message;
    part.iov_len = size;
    m.msg_iov = &part;
    m.msg_iovlen = 1;
    m.msg_control = control.space;
    m.msg_controllen = sizeof control.space;
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    control.header.cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(&control.header), &sock, sizeof sock);
    do
        n = sendmsg(c->fd, &m, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n == (ssize_t)size;
}

/* calloutd_exchange_ sends a request and receives the answer into message, which
 * has room for the longest. It returns the answer's size, 0 if there is none. */
static inline size_t calloutd_exchange_(calloutd_client *c, uint8_t *message, size_t size, int sock) {
    ssize_t n;
    /* A service that turns clients away has said why before. */
    if (!calloutd_send_(c, message, size, sock) && errno != EPIPE)
        return 0;
    do
        n = recv(c->fd, message, CALLOUTD_HEADER + CALLOUTD_MAX_PAYLOAD, 0);
    while (n < 0 && errno == EINTR);
    if (n == 0)
        errno = ECONNRESET;
    return n > 0 ? (size_t)n : 0;
}

/* calloutd_ask_ makes one request. answer has room for CALLOUTD_MAX_PAYLOAD bytes. */
static inline uint32_t calloutd_ask_(calloutd_client *c, uint16_t operation, int sock, const void *data, size_t size, uint8_t *answer, size_t *answered) {
    uint8_t m[CALLOUTD_HEADER + CALLOUTD_MAX_PAYLOAD];
    uint32_t status, length, rule;
    size_t n = 0;
    int again;
    *answered = 0;
    c->rule[0] = c->reason[0] = 0;
    if (size > CALLOUTD_MAX_PAYLOAD)
        return calloutd_fail_(c, CALLOUTD_STATUS_INVALID_PARAMETER, "more bytes than a message has");
    c->last++;
    /* Once more on a new connection: an idle one is closed after a while. */
    for (again = c->fd >= 0; n == 0; again = 0) {
        uint8_t *p = m;
        if (c->fd < 0 && !calloutd_connect_(c))
            return calloutd_fail_(c, CALLOUTD_STATUS_DEVICE_NOT_READY, strerror(errno));
        p = calloutd_put_(p, 0x31575243u, 4);
        p = calloutd_put_(p, 1, 2);
        p = calloutd_put_(p, operation, 2);
        p = calloutd_put_(p, c->last, 4);
        p = calloutd_put_(p, (uint32_t)size, 4);
        p = calloutd_put_(p, 0, 4);
        p = calloutd_put_(p, 0, 4);
        if (size > 0)
            memcpy(p, data, size);
        n = calloutd_exchange_(c, m, CALLOUTD_HEADER + size, sock);
        if (n == 0) {
            int saved = errno;
            calloutd_close(c);
            errno = saved;
            if (!again || saved == EBADF)
                return calloutd_fail_(c, CALLOUTD_STATUS_DEVICE_NOT_READY, strerror(saved));
        }
    }
    length = n < CALLOUTD_HEADER ? 0 : calloutd_get_(m + 12, 4);
    rule = n < CALLOUTD_HEADER ? 0 : calloutd_get_(m + 20, 2);
    if (n < CALLOUTD_HEADER || calloutd_get_(m, 4) != 0x31575243u || calloutd_get_(m + 4, 2) != 1 || length != n - CALLOUTD_HEADER || rule > length) {
        calloutd_close(c);
        return calloutd_fail_(c, CALLOUTD_STATUS_DEVICE_NOT_READY, "what answers is no service of calloutd");
    }
    status = calloutd_get_(m + 16, 4);
    if (calloutd_get_(m + 8, 4) != c->last) { /* The service turned the client away. */
        calloutd_close(c);
        if (status == CALLOUTD_STATUS_SUCCESS)
            return calloutd_fail_(c, CALLOUTD_STATUS_DEVICE_NOT_READY, "the service answers something else");
    }
    if (status != CALLOUTD_STATUS_SUCCESS) {
        calloutd_text_(c->rule, sizeof c->rule, m + CALLOUTD_HEADER, rule);
        calloutd_text_(c->reason, sizeof c->reason, m + CALLOUTD_HEADER + rule, length - rule);
        return status;
    }
    memcpy(answer, m + CALLOUTD_HEADER, length);
    *answered = length;
    return status;
}

static inline uint32_t calloutd_query_(calloutd_client *c, uint16_t operation, int sock, void *buffer, size_t *size) {
    uint8_t answer[CALLOUTD_MAX_PAYLOAD];
    size_t room = *size;
    uint32_t status = calloutd_ask_(c, operation, sock, NULL, 0, answer, size);
    if (status != CALLOUTD_STATUS_SUCCESS)
        return status;
    if (room < *size)
        return calloutd_fail_(c, CALLOUTD_STATUS_BUFFER_TOO_SMALL, "the buffer is too small");
    memcpy(buffer, answer, *size);
    return status;
}

/* calloutd_query_records asks for the redirect records of a connection that was
 * accepted. *size is the room in buffer, then the bytes of the answer, also when
 * they do not fit (CALLOUTD_STATUS_BUFFER_TOO_SMALL). */
static inline uint32_t calloutd_query_records(calloutd_client *c, int sock, void *buffer, size_t *size) {
    return calloutd_query_(c, 1, sock, buffer, size);
}

/* calloutd_query_context asks for what the callout left for the proxy; see
 * calloutd_query_records. */
static inline uint32_t calloutd_query_context(calloutd_client *c, int sock, void *buffer, size_t *size) {
    return calloutd_query_(c, 2, sock, buffer, size);
}

/* calloutd_query_original_destination asks where a redirected connection was to
 * go. */
static inline uint32_t calloutd_query_original_destination(calloutd_client *c, int sock, struct sockaddr_storage *to) {
    uint8_t answer[CALLOUTD_MAX_PAYLOAD];
    size_t size;
    uint16_t port;
    uint32_t status = calloutd_ask_(c, 3, sock, NULL, 0, answer, &size);
    if (status != CALLOUTD_STATUS_SUCCESS)
        return status;
    memset(to, 0, sizeof *to);
    port = (uint16_t)calloutd_get_(answer + 2, 2);
    if (size == CALLOUTD_ADDRESS && calloutd_get_(answer, 2) == 4) {
        struct sockaddr_in *a = (struct sockaddr_in *)to;
        a->sin_family = AF_INET;
        a->sin_port = htons(port);
        memcpy(&a->sin_addr, answer + 8, 4);
    } else if (size == CALLOUTD_ADDRESS && calloutd_get_(answer, 2) == 6) {
        struct sockaddr_in6 *a = (struct sockaddr_in6 *)to;
        a->sin6_family = AF_INET6;
        a->sin6_port = htons(port);
        a->sin6_scope_id = calloutd_get_(answer + 4, 4);
        memcpy(&a->sin6_addr, answer + 8, 16);
    } else {
        return calloutd_fail_(c, CALLOUTD_STATUS_DEVICE_NOT_READY, "the service answers no address");
    }
    return status;
}

/* calloutd_set_records puts records on a socket that is about to connect, so that
 * its connection is known as the redirected one's continuation. */
static inline uint32_t calloutd_set_records(calloutd_client *c, int sock, const void *records, size_t size) {
    uint8_t answer[CALLOUTD_MAX_PAYLOAD];
    return calloutd_ask_(c, 4, sock, records, size, answer, &size);
}

#endif
