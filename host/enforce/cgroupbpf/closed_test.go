//go:build linux && (amd64 || arm64)

package cgroupbpf

import (
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce/enforcetest"
)

// An attachment that is closed has nothing open, also of the namespaces that it was in.
func TestClosedAttachmentHasNoDescriptors(t *testing.T) {
	s := namespaceSite(t)
	h := s.start(t, unix.CLONE_NEWNET, "up/", "stdin/")
	require.Equal(t, "up", h.line())
	again := func() { require.NoError(t, s.attach(t).Close()) }
	again() // What a process has once and for all, it has now.
	before := enforcetest.Held(t)
	for range 10 {
		again()
	}
	before.NoMore(t, 4<<20)
	require.Equal(t, []string{"told"}, h.end())
}
