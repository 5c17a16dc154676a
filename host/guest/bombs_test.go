package guest_test

import (
	"bytes"
	"encoding/binary"
)

// bomb is a callout with so many globals and a function that it does not call, which has a
// local of type i32 and the given code.
func bomb(globals int, code []byte) []byte {
	vec := func(b []byte) []byte { return append(binary.AppendUvarint(nil, uint64(len(b))), b...) }
	section := func(id byte, b ...byte) []byte { return append([]byte{id}, vec(b)...) }
	export := func(name string, kind, index byte) []byte { return append(vec([]byte(name)), kind, index) }
	body := append(append([]byte{1, 1, 0x7f}, code...), 0x0b)
	return bytes.Join([][]byte{[]byte("\x00asm\x01\x00\x00\x00"),
		section(1, 3, 0x60, 0, 1, 0x7f, 0x60, 0, 1, 0x7e, 0x60, 0, 0),
		section(3, 3, 0, 1, 2),
		section(5, 1, 0, 1),
		section(6, append(binary.AppendUvarint(nil, uint64(globals)), bytes.Repeat([]byte{0x7f, 1, 0x41, 0, 0x0b}, globals)...)...),
		section(7, bytes.Join([][]byte{{3}, export("memory", 2, 0), export("callout_abi_v1", 0, 0), export("callout_classify", 0, 1)}, nil)...),
		section(10, bytes.Join([][]byte{{3}, vec([]byte{0, 0x41, 0x80, 8, 0x0b}), vec([]byte{0, 0x42, 1, 0x0b}), vec(body)}, nil)...),
	}, nil)
}

// slow is n branches one behind the other: each looks at all before it.
func slow(n int) []byte {
	return bomb(0, bytes.Join([][]byte{{2, 0x40}, bytes.Repeat([]byte{0x20, 0, 0x0d, 0}, n), {0x0b}}, nil))
}

// hungry is n calls, after each of which a thousand globals may have changed.
func hungry(n int) []byte { return bomb(1000, bytes.Repeat([]byte{0x10, 0, 0x1a}, n)) }
