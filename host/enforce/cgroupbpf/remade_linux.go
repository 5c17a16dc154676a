//go:build amd64 || arm64

package cgroupbpf

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// remain attaches to what is made at the cgroup's path when that was removed: a service manager
// removes the cgroup of a service that ends, and makes another one when it starts. The
// programs went with the first one.
func (a *Attachment) remain() error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("cgroupbpf: %w", os.NewSyscallError("inotify_init1", err))
	}
	changes := os.NewFile(uintptr(fd), "inotify")
	raw, err := changes.SyscallConn()
	if err != nil {
		return errors.Join(fmt.Errorf("cgroupbpf: %w", err), changes.Close())
	}
	context.AfterFunc(a.ctx, func() { changes.Close() })
	a.wg.Go(func() {
		defer changes.Close() // It may hear of ctx before that does.
		for b := make([]byte, 4096); ; {
			// Before it looks: what comes then is told. Once it is closed the number is another's.
			_ = raw.Control(func(fd uintptr) { watchAbove(int(fd), a.opts.Cgroup) })
			if !a.attached() {
				_ = changes.SetReadDeadline(time.Now().Add(again))
			}
			if _, err := changes.Read(b); a.ctx.Err() != nil {
				return
			} else if err == nil || os.IsTimeout(err) {
				_ = changes.SetReadDeadline(time.Time{})
			}
		}
	})
	return nil
}

// watchAbove watches a folder, which may not be there, and those above it.
func watchAbove(fd int, path string) {
	for dir := filepath.Clean(path); ; dir = filepath.Dir(dir) {
		_, _ = unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_DELETE|unix.IN_ONLYDIR)
		if _, err := cgroupID(filepath.Dir(dir)); err != nil && !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			return // The hierarchy begins there.
		}
	}
}

// attached attaches to the cgroup, if it is there and another one than that which is
// attached to, and reports whether that succeeded.
func (a *Attachment) attached() bool {
	a.linking.Lock()
	defer a.linking.Unlock()
	id, err := cgroupID(a.opts.Cgroup)
	switch {
	case a.ctx.Err() != nil || a.drained || id == a.to:
		return true
	case err != nil:
		if a.to != 0 {
			a.opts.Logf("cgroupbpf: %s was removed: nothing is decided until it is made again", a.opts.Cgroup)
		}
		a.to = 0
		return true
	}
	err = a.unlink()
	if err == nil {
		err = a.attach()
	}
	if err == nil {
		err = a.meetItself()
	}
	if err != nil {
		a.to = 0
		a.opts.Logf("cgroupbpf: %s was made again, and is not decided: %v", a.opts.Cgroup, err)
		return false
	}
	a.opts.Logf("cgroupbpf: %s was made again, and is decided from now on", a.opts.Cgroup)
	a.settle()
	return true
}
