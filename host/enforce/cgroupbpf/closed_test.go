//go:build linux && (amd64 || arm64)

package cgroupbpf

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce/enforcetest"
)

// A namespace that several look into at once is entered once: nobody would leave it the
// second time, and Close would wait for ever.
func TestNamespaceIsEnteredOnce(t *testing.T) {
	s := namespaceSite(t)
	a := s.attach(t)
	h := s.start(t, unix.CLONE_NEWNET, "up/", "stdin/")
	require.Equal(t, "up", h.line())
	var wg sync.WaitGroup
	for range 8 { // As it does when it begins and when the cgroup is made again.
		wg.Go(a.settle)
	}
	wg.Wait()
	require.Len(t, a.allHomes(), 2)
	closed := make(chan error, 1)
	go func() { closed <- a.Close() }()
	select {
	case err := <-closed:
		require.NoError(t, err)
	case <-time.After(time.Minute):
		t.Fatal("it does not end")
	}
	require.Equal(t, []string{"told"}, h.end())
}

// One that is closed has nothing open, also of the namespaces that it was in.
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
