//go:build linux && (amd64 || arm64)

package seccomp

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A redirect to a port of this host where nobody listens is refused at once,
// also to a socket that does not wait: so that the supervisor hears of it.
func TestRedirectToNobody(t *testing.T) {
	out := run(t, redirectTo(vacant(t)), "nonblocking", test4)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	require.Equal(t, "ECONNREFUSED", lines[0], out)
	require.Equal(t, "ECONNREFUSED", lines[len(lines)-1], "and the socket can be used again: %s", out)
}
