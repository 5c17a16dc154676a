//go:build amd64 || arm64

package seccomp

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// protection makes this process non-dumpable while it supervises: a program of
// the same user could otherwise trace it, or fetch the listener and answer its
// own calls. A new program image starts dumpable again, so the command is not
// affected.
var protection struct {
	sync.Mutex
	users, before int
}

func protect() (undo func(), err error) {
	p := &protection
	p.Lock()
	defer p.Unlock()
	if p.users == 0 {
		if p.before, err = unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err == nil {
			err = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
		}
		if err != nil {
			return nil, fmt.Errorf("protect the supervisor: prctl: %w", err)
		}
	}
	p.users++
	return unprotect, nil
}

func unprotect() {
	p := &protection
	p.Lock()
	defer p.Unlock()
	if p.users--; p.users == 0 && p.before == 1 { // 2, of a setuid program, cannot be set.
		_ = unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0)
	}
}
