// Package doomed runs code on an OS thread that ends with it, for settings of a
// thread that cannot be taken back: seccomp filters, Landlock, no_new_privs.
package doomed

import "runtime"

// Go calls f on an OS thread of its own and ends that thread when f returns. It
// does not wait. The thread is never the main one: Go parks the main thread
// instead of ending it, so a filter on it would last as long as the process.
func Go(f func()) {
	go func() {
		runtime.LockOSThread() // Never unlocked.
		if !mainThread() {
			f()
			return
		}
		taken := make(chan struct{})
		go func() { // The main thread is held here, so this one gets another.
			runtime.LockOSThread()
			close(taken)
			f()
		}()
		<-taken
		runtime.UnlockOSThread()
	}()
}
