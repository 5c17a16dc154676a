package flight

import (
	"strconv"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// Equal texts are one, and a file with ever other ones does not fill the memory.
func TestNamesAreOneAndBounded(t *testing.T) {
	var n names
	a, b := n.get([]byte("name")), n.get([]byte("name"))
	require.Equal(t, "name", a)
	require.Same(t, unsafe.StringData(a), unsafe.StringData(b))
	for i := range 2 * maxNames {
		text := strconv.Itoa(i)
		require.Equal(t, text, n.get([]byte(text)))
		require.LessOrEqual(t, len(n.known), maxNames)
	}
}
