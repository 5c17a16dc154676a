/*
 * callout_json.h: reads a configuration, which is JSON, from its start to its end.
 * Nothing is allocated: what is read is asked for in the order in which it stands.
 *
 *     callout_json j = callout_json_begin(config, len);
 *     callout_json_open(&j, '{');
 *     while (callout_json_next(&j, '}')) {
 *         char key[32];
 *         callout_json_key(&j, key, sizeof key);
 *         ...
 *     }
 *     if (!callout_json_done(&j))
 *         return "the configuration is no JSON that this callout reads";
 *
 * After the first mistake every function answers that there is nothing, so that
 * only the end needs to be looked at.
 */
#ifndef CALLOUT_JSON_H
#define CALLOUT_JSON_H

#include "callout.h"

typedef struct {
    const uint8_t *at, *end;
    bool first, failed;
} callout_json;

static inline callout_json callout_json_begin(const uint8_t *text, uint32_t len) {
    callout_json j;
    j.at = text;
    j.end = text + len;
    j.first = true;
    j.failed = false;
    return j;
}

static inline bool callout_json_fail(callout_json *j) {
    j->failed = true;
    j->at = j->end;
    return false;
}

/* The next byte that is no space; 0 at the end. */
static inline uint8_t callout_json_peek(callout_json *j) {
    while (j->at < j->end && (*j->at == ' ' || *j->at == '\t' || *j->at == '\n' || *j->at == '\r'))
        j->at++;
    return j->at < j->end ? *j->at : 0;
}

static inline bool callout_json_take(callout_json *j, uint8_t c) {
    if (j->failed || callout_json_peek(j) != c || j->at == j->end)
        return callout_json_fail(j);
    j->at++;
    return true;
}

/* Enters a list, '[', or an object, '{'. */
static inline bool callout_json_open(callout_json *j, char open) {
    j->first = true;
    return callout_json_take(j, (uint8_t)open);
}

/* Goes to the next item; false at the end, which close is. */
static inline bool callout_json_next(callout_json *j, char close) {
    bool first = j->first;
    j->first = false;
    if (!j->failed && callout_json_peek(j) == (uint8_t)close && j->at < j->end) {
        j->at++;
        return false;
    }
    return !j->failed && (first || callout_json_take(j, ','));
}

static inline uint32_t callout_json_hex(callout_json *j) {
    uint32_t n = 0;
    for (int i = 0; i < 4; i++) {
        uint8_t c = j->at < j->end ? *j->at++ : 0, low = c | 32;
        if (c >= '0' && c <= '9')
            n = n << 4 | (c - '0');
        else if (low >= 'a' && low <= 'f')
            n = n << 4 | (low - 'a' + 10);
        else
            return callout_json_fail(j);
    }
    return n;
}

/* The character of an escape, after its backslash. Half of a pair is U+FFFD. */
static inline uint32_t callout_json_escape(callout_json *j) {
    static const char names[] = "\"\\/bfnrt", stand[] = "\"\\/\b\f\n\r\t";
    uint8_t c = j->at < j->end ? *j->at++ : 0;
    for (uint32_t i = 0; c && i < sizeof names - 1; i++)
        if ((uint8_t)names[i] == c)
            return (uint8_t)stand[i];
    if (c != 'u')
        return callout_json_fail(j);
    uint32_t n = callout_json_hex(j);
    if (n >= 0xd800 && n < 0xdc00 && j->end - j->at >= 6 && j->at[0] == '\\' && j->at[1] == 'u') {
        j->at += 2;
        uint32_t low = callout_json_hex(j);
        return low >= 0xdc00 && low < 0xe000 ? 0x10000 + ((n - 0xd800) << 10) + (low - 0xdc00) : 0xfffd;
    }
    return n >= 0xd800 && n < 0xe000 ? 0xfffd : n;
}

static inline uint32_t callout_json_utf8(uint32_t c, char *out) {
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    uint32_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (uint32_t i = n - 1; i > 0; i--, c >>= 6)
        out[i] = (char)(0x80 | (c & 0x3f));
    out[0] = (char)((0xf00 >> n & 0xff) | c);
    return n;
}

/* Reads a text with a zero byte at its end; false if it is none or needs more
 * room. A text that has a zero byte is none. */
static inline bool callout_json_text(callout_json *j, char *out, uint32_t cap) {
    uint32_t n = 0;
    out[0] = 0;
    if (!callout_json_take(j, '"'))
        return false;
    while (j->at < j->end && *j->at != '"') {
        uint8_t c = *j->at++;
        if (c < 0x20 || n + 5 > cap)
            return callout_json_fail(j);
        uint32_t wide = c == '\\' ? callout_json_escape(j) : 0;
        if (c == '\\' && !wide)
            return callout_json_fail(j);
        if (c == '\\')
            n += callout_json_utf8(wide, out + n);
        else
            out[n++] = (char)c;
        out[n] = 0;
    }
    return callout_json_take(j, '"');
}

static inline bool callout_json_key(callout_json *j, char *out, uint32_t cap) {
    return callout_json_text(j, out, cap) && callout_json_take(j, ':');
}

/* Reads a whole number from 0 to max. */
static inline bool callout_json_number(callout_json *j, uint32_t max, uint32_t *out) {
    uint64_t n = 0;
    uint8_t c = callout_json_peek(j);
    *out = 0;
    if (j->failed || c < '0' || c > '9')
        return callout_json_fail(j);
    for (; j->at < j->end && *j->at >= '0' && *j->at <= '9'; j->at++)
        if ((n = n * 10 + (*j->at - '0')) > max)
            return callout_json_fail(j);
    if (j->at < j->end && (*j->at == '.' || (*j->at | 32) == 'e'))
        return callout_json_fail(j);
    *out = (uint32_t)n;
    return true;
}

/* Reports whether all was read, and nothing was wrong. */
static inline bool callout_json_done(callout_json *j) { return !j->failed && callout_json_peek(j) == 0 && j->at == j->end; }

#endif /* CALLOUT_JSON_H */
