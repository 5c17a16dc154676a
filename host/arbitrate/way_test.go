package arbitrate

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The hash of a text is of its length and of every byte, however it is made.
func TestEveryByteIsInTheHashOfAText(t *testing.T) {
	for n := range 70 {
		text := strings.Repeat("a", n)
		hash := appHash(text)
		require.Equal(t, hash, appHash(strings.Clone(text)))
		require.NotEqual(t, hash, appHash(text+"a"), "%d bytes", n)
		for i := range n {
			other := []byte(text)
			other[i] = 'b'
			require.NotEqual(t, hash, appHash(string(other)), "byte %d of %d", i, n)
		}
	}
}
