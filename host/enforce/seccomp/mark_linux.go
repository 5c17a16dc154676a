//go:build amd64 || arm64

package seccomp

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A token is what the kernel makes up for each program that begins, and leaves in
// its memory: AT_RANDOM.
type token [16]byte

// A mark is where the program of a thread has its token. While it is there the
// thread has not become another program, unless that one means to look like it.
type mark struct {
	at    uint64 // 0: not known
	token token
}

// readMark finds the mark of a thread; there is none where something has cleared
// the token, which then tells nothing.
func (t *target) readMark(buf []byte) (m mark) {
	fd, err := unix.Openat(t.dir, "auxv", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return mark{}
	}
	defer unix.Close(fd)
	n, _ := unix.Read(fd, buf)
	for auxv := buf[:max(n, 0)]; len(auxv) >= 16; auxv = auxv[16:] {
		const atRandom = 25
		if binary.NativeEndian.Uint64(auxv) == atRandom {
			m.at = binary.NativeEndian.Uint64(auxv[8:])
		}
	}
	if m.at == 0 || readMemory(t.tid, m.at, m.token[:]) != 0 || zero(m.token[:8]) || zero(m.token[8:]) {
		return mark{}
	}
	return m
}

func zero(b []byte) bool { return binary.NativeEndian.Uint64(b) == 0 }

// readMarked is readMemory that also reads what is in the place of the token. When
// nothing is, the mark is gone.
func (t *target) readMarked(addr uint64, b []byte, seen *token) unix.Errno {
	if t.mark.at == 0 || len(b) == 0 {
		return readMemory(t.tid, addr, b)
	}
	local := [2]unix.Iovec{{Base: &b[0]}, {Base: &seen[0]}}
	local[0].SetLen(len(b))
	local[1].SetLen(len(seen))
	remote := [2]unix.RemoteIovec{{Base: uintptr(addr), Len: len(b)}, {Base: uintptr(t.mark.at), Len: len(seen)}}
	n, _, e := unix.Syscall6(unix.SYS_PROCESS_VM_READV, uintptr(t.tid), uintptr(unsafe.Pointer(&local)), uintptr(len(local)),
		uintptr(unsafe.Pointer(&remote)), uintptr(len(remote)), 0)
	switch {
	case e != 0:
		return e
	case int(n) < len(b):
		return unix.EFAULT
	case int(n) < len(b)+len(seen):
		t.mark, *seen = mark{}, token{}
	}
	return 0
}
