package meter_test

import (
	"bytes"
	"encoding/binary"
)

// A builder makes a module of functions without parameters and results.
type builder struct {
	code    [][]byte
	exports []byte
	n       int
	locals  uint64 // i64 locals of the next functions
	hosted  bool   // function 0 is the host's env.f
}

func newBuilder() *builder { return new(builder) }

func uleb(b []byte, n int) []byte { return binary.AppendUvarint(b, uint64(n)) }

func vec(b, content []byte) []byte { return append(uleb(b, len(content)), content...) }

func repeat(n int, code ...byte) []byte { return bytes.Repeat(code, n) }

func (b *builder) function(code ...byte) {
	body := []byte{0}
	if b.locals > 0 {
		body = append(binary.AppendUvarint([]byte{1}, b.locals), 0x7e)
	}
	b.code = append(b.code, append(append(body, code...), 0x0b))
}

func (b *builder) export(name string, f int) {
	b.n++
	b.exports = uleb(append(vec(b.exports, []byte(name)), 0), f)
}

func (b *builder) bytes() []byte {
	m := []byte("\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00")
	if b.hosted {
		m = append(m, "\x02\x09\x01\x03env\x01f\x00\x00"...)
	}
	m = append(m, 3)
	m = vec(m, append(uleb(nil, len(b.code)), make([]byte, len(b.code))...))
	m = append(m, "\x05\x03\x01\x00\x01"...)
	m = vec(append(m, 7), append(uleb(nil, b.n), b.exports...))
	code := uleb(nil, len(b.code))
	for _, f := range b.code {
		code = vec(code, f)
	}
	return vec(append(m, 10), code)
}

// assemble is a module of sections.
func assemble(sections ...[]byte) []byte {
	return append([]byte("\x00asm\x01\x00\x00\x00"), bytes.Join(sections, nil)...)
}

func section(id byte, content ...byte) []byte { return vec([]byte{id}, content) }
