//go:build linux && (amd64 || arm64)

package seccomp

import (
	"runtime"
	"runtime/debug"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce/internal/doomed"
)

// The listener's calls fail with EINTR when a signal comes at the wrong moment.
// An answer that is lost so would leave the program waiting for ever.
func TestListenerIsNotInterrupted(t *testing.T) {
	need(t)
	to := listen(t)
	cmd := helper("dial when told", to.addr.String())
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	started, ended := make(chan listener, 1), make(chan error, 1)
	doomed.Go(func() {
		err := startTrapped(cmd, &Options{Logf: t.Logf}, func(l listener) { started <- l })
		if err == nil {
			err = cmd.Wait()
		}
		ended <- err
	})
	l := <-started
	defer unix.Close(l.fd)
	// The call that is tried here waits, which the others do not: Go does not know,
	// and would wait for this thread to collect garbage, or to run anything else.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	runtime.GC() // One that was about to start when they were turned off starts all the same, before this one.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(max(2, runtime.NumCPU())))
	n := new(notif)
	var e unix.Errno
	tid, received := thread(func() { e = l.retry(unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(n)) })
	for range 20 {
		inSystemCall(tid, unix.SYS_IOCTL)
		kick(tid)
	}
	_, err = in.Write([]byte("go\n"))
	require.NoError(t, err)
	<-received
	require.Zero(t, e)
	require.True(t, l.send(&response{ID: n.ID, Error: -int32(unix.EPERM)}))
	require.NoError(t, <-ended)
}
