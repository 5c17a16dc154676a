//go:build amd64 || arm64

package seccomp

import (
	"encoding/binary"
	"slices"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// names has what programs asked for where they got something else: see
// Options.ShowRequested.
type names struct {
	mu    sync.Mutex
	peers map[uint64][]byte // by cookie, which is never used again
	binds map[uint64][]byte
	order []uint64
}

const maxNames = 1 << 16 // The oldest are forgotten first.

// keep notes an address; nil means that the program got what it asked for.
func (ns *names) keep(m *map[uint64][]byte, cookie uint64, sa []byte) {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if sa == nil {
		delete(*m, cookie)
		return
	}
	if *m == nil {
		*m = map[uint64][]byte{}
	}
	if len(ns.order) >= maxNames {
		delete(ns.peers, ns.order[0])
		delete(ns.binds, ns.order[0])
		ns.order = ns.order[1:]
	}
	(*m)[cookie] = slices.Clone(sa)
	ns.order = append(ns.order, cookie)
}

func (ns *names) get(m map[uint64][]byte, cookie uint64) []byte {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	return m[cookie]
}

// named notes how a connect or bind was answered: as the program's address says,
// or otherwise.
func (w *worker) named(m *map[uint64][]byte, otherwise bool) {
	if !w.s.opts.ShowRequested {
		return
	}
	var sa []byte
	if otherwise {
		sa = w.sa[:w.saLen]
	}
	w.s.names.keep(m, w.sock.cookie, sa)
}

// getpeername answers with the address that the program connected to.
func (w *worker) getpeername() unix.Errno { return w.showName(unix.SYS_GETPEERNAME, &w.s.names.peers) }

// getsockname answers with the address that the program bound.
func (w *worker) getsockname() unix.Errno { return w.showName(unix.SYS_GETSOCKNAME, &w.s.names.binds) }

func (w *worker) showName(nr uintptr, m *map[uint64][]byte) unix.Errno {
	if e := w.look(); e != 0 {
		return e
	}
	asked := w.s.names.get(*m, w.sock.cookie)
	if asked == nil {
		return proceed
	}
	w.size = uint32(len(w.sa))
	if _, e := w.syscall(nr, uintptr(w.fd), uintptr(unsafe.Pointer(&w.sa)), uintptr(unsafe.Pointer(&w.size)), 0); e != 0 {
		return e
	}
	if !w.s.l.valid(&w.n.ID) {
		return nobody
	}
	is := w.sa[:min(w.size, uint32(len(w.sa)))]
	shown := append([]byte(nil), is...)
	copy(shown, asked)
	if binary.BigEndian.Uint16(asked[2:]) == 0 { // The system chose the port.
		copy(shown[2:4], is[2:4])
	}
	return w.writeSockaddr(w.n.Data.Args[1], w.n.Data.Args[2], shown)
}
