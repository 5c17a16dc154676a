package meter_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/guest/meter"
)

// many is a module whose section has the same n times.
func many(section byte, n int, each []byte) []byte {
	content := bytes.Repeat(each, n)
	return append([]byte("\x00asm\x01\x00\x00\x00"), vec([]byte{section}, append(uleb(nil, n), content...))...)
}

// The host keeps 300 bytes for a byte of some modules, most for each instance: 30 MB of
// elements took 8 GiB, and minutes in which nobody could end it.
func TestOfNothingAModuleHasTooMuch(t *testing.T) {
	elements := func(n int) []byte { return many(9, 2, append(uleb([]byte{1, 0}, n/2), make([]byte, n/2)...)) }
	for _, c := range []struct {
		what string
		most int
		make func(n int) []byte
	}{
		{"types", 1 << 14, func(n int) []byte { return many(1, n, []byte{0x60, 0, 0}) }},
		{"parameters and results of types", 1 << 17, func(n int) []byte {
			return many(1, 2, append(vec([]byte{0x60}, repeat(n/2, 0x7f)), 0))
		}},
		{"imports", 1 << 14, func(n int) []byte { return many(2, n, []byte{0, 0, 3, 0x7f, 0}) }},
		{"functions", 1 << 17, func(n int) []byte { return many(3, n, []byte{0}) }},
		{"globals", 1 << 14, func(n int) []byte { return many(6, n, []byte{0x7f, 0, 0x41, 0, 0x0b}) }},
		{"exports", 1 << 16, func(n int) []byte { return many(7, n, []byte{0, 3, 0}) }},
		{"elements of tables", 1 << 17, elements},
		{"elements of tables", 1 << 17, func(n int) []byte { return many(9, n, []byte{1, 0, 0}) }},
		{"data segments", 1 << 17, func(n int) []byte { return many(11, n, []byte{1, 0}) }},
	} {
		t.Run(c.what, func(t *testing.T) {
			_, err := meter.Strip(c.make(c.most))
			if err != nil { // There is no type, say.
				require.NotContains(t, err.Error(), "over the limit")
			}
			_, err = meter.Strip(c.make(c.most + 2))
			var over *meter.Error
			require.ErrorAs(t, err, &over)
			require.True(t, over.Over)
			require.ErrorContains(t, err, fmt.Sprintf("%d %s are over the limit of %d", c.most+2, c.what, c.most))
		})
	}
}
