package bypass

import (
	"encoding/binary"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What a ring is asked for.
const (
	Sendmsg = 9  // IORING_OP_SENDMSG
	Connect = 16 // IORING_OP_CONNECT
)

// params is struct io_uring_params.
type params struct {
	sqEntries, cqEntries, flags, cpu, idle, features, wq uint32
	_                                                    [3]uint32
	sq                                                   struct {
		head, tail, mask, entries, flags, dropped, array, _ uint32
		_                                                   uint64
	}
	cq struct {
		head, tail, mask, entries, overflow, cqes, flags, _ uint32
		_                                                   uint64
	}
}

// Ring connects a socket to a sockaddr, or sends a byte there, through an io_uring of
// its own. The error is an os.SyscallError if there is no ring, and an errno if the
// operation failed.
func Ring(op byte, fd int, address []byte) error {
	var p params
	ring, _, e := unix.RawSyscall(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&p)), 0)
	if e != 0 {
		return os.NewSyscallError("setup", e)
	}
	defer unix.Close(int(ring))
	rings, err := unix.Mmap(int(ring), 0, int(max(p.sq.array+p.sqEntries*4, p.cq.cqes+p.cqEntries*16)), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return os.NewSyscallError("mmap", err)
	}
	sqes, err := unix.Mmap(int(ring), 0x10000000, int(p.sqEntries)*64, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return os.NewSyscallError("mmap", err)
	}
	word := []byte("x")
	msg := &unix.Msghdr{Name: &address[0], Namelen: uint32(len(address)), Iov: &unix.Iovec{Base: &word[0], Len: 1}, Iovlen: 1}
	sqes[0] = op
	binary.NativeEndian.PutUint32(sqes[4:], uint32(fd))
	if op == Connect {
		binary.NativeEndian.PutUint64(sqes[8:], uint64(len(address)))
		binary.NativeEndian.PutUint64(sqes[16:], uint64(uintptr(unsafe.Pointer(&address[0]))))
	} else {
		binary.NativeEndian.PutUint64(sqes[16:], uint64(uintptr(unsafe.Pointer(msg))))
		binary.NativeEndian.PutUint32(sqes[24:], 1)
	}
	binary.NativeEndian.PutUint32(rings[p.sq.tail:], 1) // Entry 0 of the array is submission 0.
	_, _, e = unix.Syscall6(unix.SYS_IO_URING_ENTER, ring, 1, 1, 1, 0, 0)
	runtime.KeepAlive(msg)
	if e != 0 {
		return os.NewSyscallError("enter", e)
	}
	if n := int32(binary.NativeEndian.Uint32(rings[p.cq.cqes+8:])); n < 0 {
		return unix.Errno(-n)
	}
	return nil
}
