//go:build linux && (amd64 || arm64)

package seccomp

import (
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A redirect to a port of this host where nobody listens is refused at once,
// also to a socket that does not wait: so that the supervisor hears of it.
func TestRedirectToNobody(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	gone := must(l.Addr().String())
	require.NoError(t, l.Close())
	out := run(t, redirectTo(gone), "nonblocking", test4)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	require.Equal(t, "ECONNREFUSED", lines[0], out)
	require.Equal(t, "ECONNREFUSED", lines[len(lines)-1], "and the socket can be used again: %s", out)
}
