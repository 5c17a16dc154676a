package oneline

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTextOfOthersStaysOnItsLine(t *testing.T) {
	for _, c := range []struct{ text, clean, quoted string }{
		{"/usr/bin/curl é", "/usr/bin/curl é", "/usr/bin/curl é"},
		{"a\nb", "a\ufffdb", `"a\nb"`},
		{"\x1b[2J", "\ufffd[2J", `"\x1b[2J"`},
		{"a\u2028b", "a\ufffdb", `"a\u2028b"`},
	} {
		require.Equal(t, c.clean, Clean(c.text))
		require.Equal(t, c.quoted, Quote(c.text))
	}
}
