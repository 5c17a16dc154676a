//go:build amd64 || arm64

package seccomp

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// readMemory reads len(b) bytes of a thread's memory, all or nothing.
func readMemory(tid uint32, addr uint64, b []byte) unix.Errno {
	return readVectors(tid, []unix.RemoteIovec{{Base: uintptr(addr), Len: len(b)}}, b)
}

// readVectors fills b with the memory that the vectors name.
func readVectors(tid uint32, vectors []unix.RemoteIovec, b []byte) unix.Errno {
	if len(b) == 0 {
		return 0
	}
	local := unix.Iovec{Base: &b[0]}
	local.SetLen(len(b))
	n, _, e := unix.Syscall6(unix.SYS_PROCESS_VM_READV, uintptr(tid), uintptr(unsafe.Pointer(&local)), 1,
		uintptr(unsafe.Pointer(&vectors[0])), uintptr(len(vectors)), 0)
	if e == 0 && int(n) != len(b) {
		e = unix.EFAULT
	}
	return e
}

// writeMemory is the other direction.
func writeMemory(tid uint32, addr uint64, b []byte) unix.Errno {
	if len(b) == 0 {
		return 0
	}
	local := unix.Iovec{Base: &b[0]}
	local.SetLen(len(b))
	remote := unix.RemoteIovec{Base: uintptr(addr), Len: len(b)}
	n, _, e := unix.Syscall6(unix.SYS_PROCESS_VM_WRITEV, uintptr(tid), uintptr(unsafe.Pointer(&local)), 1, uintptr(unsafe.Pointer(&remote)), 1, 0)
	if e == 0 && int(n) != len(b) {
		e = unix.EFAULT
	}
	return e
}

// sockaddr reads the address that the program gave.
func (w *worker) sockaddr(addr uint64, length int32) ([]byte, unix.Errno) {
	if length < 0 || int(length) > len(w.sa) {
		return nil, unix.EINVAL
	}
	w.saLen = int(length)
	sa := w.sa[:length]
	w.enter()
	e := w.t.readMarked(addr, sa, &w.seen)
	w.leave()
	return sa, w.wasRead(e)
}

// read fills b from the program's memory.
func (w *worker) read(addr uint64, b []byte) unix.Errno {
	return w.readVectors([]unix.RemoteIovec{{Base: uintptr(addr), Len: len(b)}}, b)
}

func (w *worker) readVectors(vectors []unix.RemoteIovec, b []byte) unix.Errno {
	w.enter()
	e := readVectors(w.n.TID, vectors, b)
	w.leave()
	return w.wasRead(e)
}

func (w *worker) wasRead(e unix.Errno) unix.Errno {
	switch e {
	case 0, unix.EFAULT:
		return e
	default:
		return w.fail("read its memory", e)
	}
}

func (w *worker) write(addr uint64, b []byte) unix.Errno {
	w.enter()
	e := writeMemory(w.n.TID, addr, b)
	w.leave()
	switch e {
	case 0, unix.EFAULT:
		return e
	default:
		return w.fail("write its memory", e)
	}
}
