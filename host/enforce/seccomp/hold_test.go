//go:build linux && (amd64 || arm64)

package seccomp

import (
	"runtime"
	"strconv"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func init() {
	// held: threads connect by addresses in pages that the program serves itself, and does
	// not: who reads them waits. Then another one connects.
	programs["held"] = func(args []string) {
		n, _ := strconv.Atoi(args[1])
		page := unservedPages(n)
		for i := range n {
			tid, _ := thread(func() {
				_, _, _ = unix.Syscall(unix.SYS_CONNECT, uintptr(newSocket(unix.AF_INET, unix.SOCK_STREAM)), uintptr(unsafe.Pointer(&page[i*unix.Getpagesize()])), 16)
			})
			connecting(tid)
		}
		fd, e := dial(must(args[0]))
		say(name(e), read(fd))
	}
}

// unservedPages is memory that whoever touches it waits for.
func unservedPages(n int) []byte {
	fd, _, e := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC, 0, 0)
	check(callErr(e))
	ioctl := func(request uintptr, arg unsafe.Pointer) {
		_, _, e := unix.Syscall(unix.SYS_IOCTL, fd, request, uintptr(arg))
		check(callErr(e))
	}
	api := [3]uint64{0xaa}                  // struct uffdio_api
	ioctl(0xc018aa3f, unsafe.Pointer(&api)) // UFFDIO_API
	b, err := unix.Mmap(-1, 0, n*unix.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	check(err)
	register := [4]uint64{uint64(uintptr(unsafe.Pointer(&b[0]))), uint64(len(b)), 1} // UFFDIO_REGISTER_MODE_MISSING
	ioctl(0xc020aa00, unsafe.Pointer(&register))                                     // UFFDIO_REGISTER
	return b
}

// Threads of the supervisor that a program holds do not stop it, although there are more
// of them than it has processors.
func TestHeldPagesDoNotStopOthers(t *testing.T) {
	asRoot(t) // Others may serve faults of their own only.
	p := serve(t, "tcp4", "127.0.0.1:0", "proxy")
	require.Equal(t, "ok proxy\n", run(t, permit, "held", p.String(), strconv.Itoa(2*runtime.GOMAXPROCS(0)+2)))
}
