package remote

import (
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long one who is let go may take for each step of it.
const patience = time.Second

// promptly runs what closes sockets that a client sent. One that lingers (SO_LINGER), or one
// in its queue that does, keeps its close waiting for as long as the client likes, but for
// a signal: SIGURG, which the Go runtime takes for one of its own.
func promptly(let func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	thread, done := unix.Gettid(), make(chan struct{})
	defer close(done)
	go func() {
		for {
			select {
			case <-time.After(patience):
				_ = unix.Tgkill(os.Getpid(), thread, unix.SIGURG) // It fails for a thread that is gone.
			case <-done:
				return
			}
		}
	}()
	let()
}
