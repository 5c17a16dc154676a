/* What the engine and a script give each other. The engine is one C file in parts,
 * since callout.h is for one; each part includes what it uses. */
#ifndef VALUE_H
#define VALUE_H
#include "callout.h"
#include "quickjs.h"

static JSContext *js;
static JSValue bytes_constructor;

static JSValue bytes(const uint8_t *p, uint32_t n) {
    JSValue buffer = JS_NewArrayBufferCopy(js, p, n);
    if (JS_IsException(buffer))
        return buffer;
    JSValue array = JS_CallConstructor(js, bytes_constructor, 1, &buffer);
    JS_FreeValue(js, buffer);
    return array;
}

static JSValue text(callout_bytes b) { return JS_NewStringLen(js, (const char *)b.ptr, b.len); }

/* Bytes of a string or of an array of bytes. The caller frees *held. */
typedef struct {
    const uint8_t *ptr;
    size_t len;
    const char *string;
} held;

static bool hold(JSValueConst v, held *h) {
    size_t off, len, size;
    h->string = NULL;
    if (JS_IsString(v)) {
        h->string = JS_ToCStringLen(js, &h->len, v);
        h->ptr = (const uint8_t *)h->string;
        return h->string != NULL;
    }
    JSValue buffer = JS_GetTypedArrayBuffer(js, v, &off, &len, &size);
    if (JS_IsException(buffer)) {
        JS_FreeValue(js, JS_GetException(js));
        JS_ThrowTypeError(js, "expected a text or a Uint8Array");
        return false;
    }
    uint8_t *p = JS_GetArrayBuffer(js, &size, buffer);
    JS_FreeValue(js, buffer); /* The array still holds it. */
    h->ptr = p ? p + off : NULL;
    h->len = p ? len : 0;
    return true;
}

static void release(held *h) {
    if (h->string)
        JS_FreeCString(js, h->string);
}

/* Reads a number. What is none is a mistake of the script: it would be 0, or another one. */
static bool whole(JSValueConst v, const char *what, uint32_t *out) {
    double d = -1;
    if (JS_IsNumber(v) && JS_ToFloat64(js, &d, v))
        return false;
    if (!(d >= 0 && d <= UINT32_MAX) || d != (uint32_t)d) {
        JS_ThrowTypeError(js, "%s: expected a whole number from 0 to 4294967295", what);
        return false;
    }
    *out = (uint32_t)d;
    return true;
}

/* Reads 64 bits: a number or a BigInt. */
static bool wide(JSValueConst v, const char *what, int64_t *out) {
    if (JS_IsBigInt(js, v))
        return !JS_ToBigInt64(js, out, v);
    if (JS_IsNumber(v))
        return !JS_ToInt64(js, out, v);
    JS_ThrowTypeError(js, "%s: expected a number or a BigInt", what);
    return false;
}

#endif
