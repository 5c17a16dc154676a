package wsknet_test

import (
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

// What io.Copy hands to a connection arrives whole and says how much it was, whether it
// comes from another connection or from any reader.
func TestReadFromMovesEverything(t *testing.T) {
	c, _ := open(t)
	l := listen(t, c)
	text := strings.Repeat("all of it, ", 10_000)

	t.Run("a reader", func(t *testing.T) {
		to, out := pair(t, c, l)
		defer to.Abort()
		defer out.Abort()
		moved := make(chan int64, 1)
		go func() {
			n, _ := to.ReadFrom(strings.NewReader(text))
			_ = to.CloseWrite()
			moved <- n
		}()
		got, err := io.ReadAll(out)
		require.NoError(t, err)
		require.Equal(t, text, string(got))
		require.EqualValues(t, len(text), <-moved)
	})

	t.Run("a reader that fails", func(t *testing.T) {
		to, out := pair(t, c, l)
		defer to.Abort()
		defer out.Abort()
		_, err := to.ReadFrom(iotest.ErrReader(io.ErrNoProgress))
		require.ErrorIs(t, err, io.ErrNoProgress)
	})

	t.Run("another connection", func(t *testing.T) {
		in, from := pair(t, c, l)
		to, out := pair(t, c, l)
		defer in.Abort()
		defer from.Abort()
		defer to.Abort()
		defer out.Abort()
		moved := make(chan int64, 1)
		go func() {
			n, _ := to.ReadFrom(from)
			_ = to.CloseWrite()
			moved <- n
		}()
		go func() {
			_, _ = io.WriteString(in, text)
			_ = in.CloseWrite()
		}()
		got, err := io.ReadAll(out)
		require.NoError(t, err)
		require.Equal(t, text, string(got))
		require.EqualValues(t, len(text), <-moved)
	})
}
