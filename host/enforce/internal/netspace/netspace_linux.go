// Package netspace runs a function in another network namespace.
package netspace

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Within runs f in the network namespace of a descriptor, in a thread of its own. To enter it takes
// CAP_SYS_ADMIN.
func Within(space int, f func() error) error {
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer own.Close()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setns(space, unix.CLONE_NEWNET); err != nil {
			runtime.UnlockOSThread()
			done <- os.NewSyscallError("setns", err)
			return
		}
		err := f()
		if unix.Setns(int(own.Fd()), unix.CLONE_NEWNET) == nil { // Else the thread ends with it.
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}
