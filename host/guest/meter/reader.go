package meter

import (
	"fmt"
	"math"
)

// An Error is a module that cannot be rewritten, with the offset of the byte.
type Error struct {
	Offset int
	Msg    string
	// Over says that the module is over a limit of this package, and may be valid.
	Over bool
}

func (e *Error) Error() string { return fmt.Sprintf("wasm byte %d: %s", e.Offset, e.Msg) }

// guard turns the reader's panics into errors.
func guard(err *error) {
	switch e := recover().(type) {
	case nil:
	case *Error:
		*err = e
	default:
		panic(e)
	}
}

// A reader reads a part of the module. It panics with an *Error.
type reader struct {
	b        []byte
	off, end int
}

func (r *reader) fail(format string, args ...any) {
	panic(&Error{Offset: r.off, Msg: fmt.Sprintf(format, args...)})
}

// over is fail for what is more than a limit.
func (r *reader) over(format string, args ...any) {
	panic(&Error{r.off, fmt.Sprintf(format, args...), true})
}

func (r *reader) u8() byte {
	if r.off >= r.end {
		r.fail("unexpected end")
	}
	r.off++
	return r.b[r.off-1]
}

// leb reads a LEB128 number of at most n bytes and says how many bits it had.
func (r *reader) leb(n int) (v uint64, bits int) {
	for i := range n {
		c := r.u8()
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			return v, 7 * (i + 1)
		}
	}
	r.fail("number is too long")
	return 0, 0
}

func (r *reader) u32() uint32 {
	v, _ := r.leb(5)
	if v > math.MaxUint32 {
		r.fail("number is over 32 bits")
	}
	return uint32(v)
}

// signed reads a signed number of at most five bytes.
func (r *reader) signed() int64 {
	v, bits := r.leb(5)
	return int64(v<<(64-bits)) >> (64 - bits)
}

// count reads the length of a vector. Every element has a byte at least; the
// compiler makes room for as many as the module says, so that a false length
// would take all memory of the process.
func (r *reader) count() uint32 {
	n := r.u32()
	if uint64(n) > uint64(r.end-r.off) {
		r.fail("vector of %d elements goes past the end", n)
	}
	return n
}

func (r *reader) take(n uint32) []byte {
	if uint64(n) > uint64(r.end-r.off) {
		r.fail("length %d goes past the end", n)
	}
	r.off += int(n)
	return r.b[r.off-int(n) : r.off]
}

func (r *reader) sub(n uint32) *reader {
	r.take(n)
	return &reader{r.b, r.off - int(n), r.off}
}

func (r *reader) rest() []byte { return r.b[r.off:r.end] }

func uleb(b []byte, v uint32) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

func sleb(b []byte, v int32) []byte {
	for v < -64 || v > 63 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v)&0x7f)
}

func vec(b, content []byte) []byte { return append(uleb(b, uint32(len(content))), content...) }
