//go:build linux && (amd64 || arm64)

package seccomp

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce/enforcetest"
	"github.com/calloutd/calloutd/host/fwps"
)

// taken opens pipes, which have the numbers of what was closed, and returns what requires
// that nobody else has written to them or put something in their place.
func taken(t *testing.T) (untouched func()) {
	type pipe struct {
		r, w   *os.File
		ri, wi os.FileInfo
	}
	stat := func(f *os.File) os.FileInfo {
		i, err := f.Stat()
		require.NoError(t, err)
		return i
	}
	var pipes []pipe
	for range 32 {
		r, w, err := os.Pipe()
		require.NoError(t, err)
		pipes = append(pipes, pipe{r, w, stat(r), stat(w)})
	}
	return func() {
		for _, p := range pipes {
			require.True(t, os.SameFile(p.ri, stat(p.r)) && os.SameFile(p.wi, stat(p.w)), "another file has its number")
			waiting, err := unix.IoctlGetInt(int(p.r.Fd()), unix.TIOCINQ)
			require.NoError(t, err)
			require.Zero(t, waiting, "somebody wrote to it")
			require.NoError(t, p.r.Close())
			require.NoError(t, p.w.Close())
		}
	}
}

// The supervisor of a tree that is gone has closed its descriptors before stop comes to
// wake it, and others have their numbers: those are left alone.
func TestStopLeavesTheFilesOfOthersAlone(t *testing.T) {
	need(t)
	s, err := newSupervisor(t.Context(), Options{ALE: permit, Logf: t.Logf})
	require.NoError(t, err)
	s.busy.Add(1) // The monitor stays awake, as it does for a while after each call.
	untouched, cancel := func() {}, s.cancel
	s.cancel = func(err error) {
		cancel(err)
		<-s.watched
		untouched = taken(t)
	}
	_, err = s.start(exec.Command("/nonexistent/command"))
	require.ErrorIs(t, err, os.ErrNotExist)
	untouched()
}

// So it is when a decision that was too late ends while that is told.
func TestLateDecisionLeavesTheFilesOfOthersAlone(t *testing.T) {
	need(t)
	asked, decide := make(chan struct{}), make(chan struct{})
	untouched := func() {}
	var s *supervisor
	s, err := newSupervisor(t.Context(), Options{ALE: deciding(func(in fwps.Incoming) netip.AddrPort {
		close(asked)
		<-decide
		return in.Remote
	}), Logf: func(format string, _ ...any) {
		if strings.Contains(format, "decisions did not end") {
			close(decide)
			<-s.watched
			untouched = taken(t)
		}
	}})
	require.NoError(t, err)
	waited, err := s.start(helper("dial", test4))
	require.NoError(t, err)
	<-asked
	s.stop()
	untouched()
	<-waited
}

// A supervisor that gets no processor for a while does not say that something has not ended.
func TestWhatHasEndedIsNotLate(t *testing.T) {
	ended := make(chan struct{})
	late, cancel := context.WithCancel(t.Context())
	cancel()
	require.False(t, over(ended, late))
	close(ended)
	for range 100 {
		require.True(t, over(ended, late))
	}
}

// A run leaves no descriptor open, however it ends.
func TestRunsLeaveNoDescriptors(t *testing.T) {
	need(t)
	ended, end := context.WithCancel(t.Context())
	end()
	again := func() {
		_, err := Run(t.Context(), Options{ALE: permit}, exec.Command("true"))
		require.NoError(t, err)
		_, err = Run(t.Context(), Options{ALE: permit}, exec.Command("/nonexistent/command"))
		require.ErrorIs(t, err, os.ErrNotExist)
		_, err = Run(ended, Options{ALE: permit}, exec.Command("true"))
		require.ErrorIs(t, err, context.Canceled)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Millisecond, cancel)
		_, err = Run(ctx, Options{ALE: permit}, exec.Command("sleep", "60"))
		require.ErrorIs(t, err, context.Canceled)
	}
	again() // What a process has once and for all, it has now.
	before := enforcetest.Held(t)
	for range 25 {
		again()
	}
	before.NoMore(t, 4<<20)
}
