//go:build linux && (amd64 || arm64)

package seccomp

import (
	"bufio"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/fwps"
)

// Each program here holds up whoever touches something of its: the supervisor, too.

func init() {
	// faults: memory whose faults the program serves itself, and does not.
	programs["faults"] = func([]string) {
		dev, err := unix.Open("/dev/userfaultfd", unix.O_RDWR|unix.O_CLOEXEC, 0)
		check(err)
		for _, flags := range []uintptr{0, userModeOnly} {
			_, _, e := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|flags, 0, 0)
			fd, _, byDevice := unix.Syscall(unix.SYS_IOCTL, uintptr(dev), userfaultfdNew, unix.O_CLOEXEC|flags)
			say(name(e), name(byDevice))
			if byDevice == 0 && flags != 0 {
				page := unservedPage(fd)
				_, _, e = unix.Syscall(unix.SYS_CONNECT, uintptr(newSocket(unix.AF_INET, unix.SOCK_STREAM)), uintptr(unsafe.Pointer(&page[0])), 16)
				say("connect", name(e))
			}
		}
	}
	// held: threads make calls that hold up who answers them, and then another process
	// connects. That one is started before: it would close the file, too.
	programs["held"] = func(args []string) {
		n, _ := strconv.Atoi(args[2])
		way := holding[args[0]]
		other := helper("dial afterwards", args[1])
		other.Stdout = os.Stdout
		tell, err := other.StdinPipe()
		check(err)
		check(other.Start())
		file, done := unansweredFile()
		defer done()
		call := way.prepare(file)
		for range n {
			tid, _ := thread(call)
			inSystemCall(tid, way.call)
		}
		check(tell.Close())
		check(other.Wait())
	}
	// exec held up: become another program, for which a file is closed that does not let go.
	programs["exec held up"] = func([]string) {
		unansweredFile()
		say("execs")
		check(unix.Exec("/bin/true", []string{"true"}, nil))
	}
	programs["serve fuse"] = func([]string) { serveFUSE(3) }
	programs["dial afterwards"] = func(args []string) {
		_ = read(0)
		fd, e := dial(must(args[0]))
		say(name(e), read(fd))
	}
}

// holding has ways to hold up, with a file whose contents never come, the system calls
// that are held up, and in what the supervisor waits then.
var holding = map[string]struct {
	call    int
	waits   int
	prepare func(file int) func()
}{
	"an address": {unix.SYS_CONNECT, unix.SYS_PROCESS_VM_READV, func(file int) func() {
		page := mapped(file)
		return func() {
			_, _, _ = unix.Syscall(unix.SYS_CONNECT, uintptr(newSocket(unix.AF_INET, unix.SOCK_STREAM)), uintptr(unsafe.Pointer(&page[0])), 16)
		}
	}},
	"a datagram": {unix.SYS_SENDTO, unix.SYS_PROCESS_VM_READV, func(file int) func() {
		page, to := mapped(file), sockaddrOf(must(test4))
		return func() {
			_, _, _ = unix.Syscall6(unix.SYS_SENDTO, uintptr(newSocket(unix.AF_INET, unix.SOCK_DGRAM)), uintptr(unsafe.Pointer(&page[0])), 16,
				0, uintptr(unsafe.Pointer(&to[0])), uintptr(len(to)))
		}
	}},
	"the close of a file": {unix.SYS_CONNECT, unix.SYS_CLOSE, func(file int) func() {
		return func() { sysConnect(file, sockaddrOf(must(test4))) }
	}},
	"the lock of a socket": {unix.SYS_CONNECT, unix.SYS_GETSOCKNAME, func(file int) func() {
		fd, e := dial(addressOf(listenRaw()))
		check(callErr(e))
		page := mapped(file)
		tid, _ := thread(func() { _, _, _ = unix.Syscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&page[0])), 16) })
		inSystemCall(tid, unix.SYS_WRITE)
		return func() { sysConnect(fd, sockaddrOf(must(test4))) }
	}},
}

func addressOf(fd int) netip.AddrPort {
	_, a, e := getName(fd)
	check(callErr(e))
	return a
}

func mapped(file int) []byte {
	b, err := unix.Mmap(file, 0, unix.Getpagesize(), unix.PROT_READ, unix.MAP_SHARED)
	check(err)
	return b
}

// unansweredFile returns a file of a file system that another process serves, which says
// nothing when it is read or closed. That one must be gone before this one can end.
func unansweredFile() (file int, done func()) {
	dev, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	check(err)
	at, err := os.CreateTemp("", "fuse")
	check(err)
	check(at.Close())
	defer os.Remove(at.Name())
	check(unix.Mount("calloutd-test", at.Name(), "fuse", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("fd=%d,rootmode=100644,user_id=0,group_id=0", dev.Fd())))
	server := helper("serve fuse")
	server.ExtraFiles = []*os.File{dev}
	server.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	check(server.Start())
	check(dev.Close())
	file, err = unix.Open(at.Name(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	check(err)
	check(unix.Unmount(at.Name(), unix.MNT_DETACH)) // It lives on in the file.
	check(unix.Fstat(file, &unix.Stat_t{}))         // It has no size before that.
	return file, func() {
		check(server.Process.Kill())
		_ = server.Wait()
	}
}

// serveFUSE answers what comes before the file is open, which is the root.
func serveFUSE(dev int) {
	answers := map[uint32][]uint32{ // By fuse_opcode; in words of 32 bits.
		3:  {0: 1, 4: 1, 6: 4096, 19: unix.S_IFREG | 0o644, 25: 0}, // FUSE_GETATTR: valid for a second, inode, size, mode
		14: {3: 0},                                                 // FUSE_OPEN
		26: {0: 7, 1: 31, 5: 4096, 15: 0},                          // FUSE_INIT: version, max_write
	}
	request := make([]byte, 1<<17)
	for {
		if _, err := unix.Read(dev, request); err != nil {
			continue
		}
		in := (*[4]uint32)(unsafe.Pointer(&request[0])) // length, opcode, unique
		if body, ok := answers[in[1]]; ok {
			out := append([]uint32{uint32(16 + 4*len(body)), 0, in[2], in[3]}, body...)
			_, err := unix.Write(dev, unsafe.Slice((*byte)(unsafe.Pointer(&out[0])), 4*len(out)))
			check(err)
		}
	}
}

func unservedPage(uffd uintptr) []byte {
	ioctl := func(request uintptr, arg unsafe.Pointer) {
		_, _, e := unix.Syscall(unix.SYS_IOCTL, uffd, request, uintptr(arg))
		check(callErr(e))
	}
	api := [3]uint64{0xaa}                  // struct uffdio_api
	ioctl(0xc018aa3f, unsafe.Pointer(&api)) // UFFDIO_API
	b, err := unix.Mmap(-1, 0, unix.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	check(err)
	register := [4]uint64{uint64(uintptr(unsafe.Pointer(&b[0]))), uint64(len(b)), 1} // UFFDIO_REGISTER_MODE_MISSING
	ioctl(0xc020aa00, unsafe.Pointer(&register))                                     // UFFDIO_REGISTER
	return b
}

// As root it may serve faults of others natively; an unprivileged program may not either.
func TestUserFaultsOfOthersAreRefused(t *testing.T) {
	asRoot(t)
	require.Equal(t, "EPERM EPERM\nok ok\nconnect EFAULT\n", run(t, permit, "faults"))
}

// A process that holds up the supervisor as often as it can, which takes a thread each
// time, stops no other and costs few threads.
func TestHeldCallsCostWhoMakesThem(t *testing.T) {
	asRoot(t)
	const calls = maxReceivers + 50
	for name, way := range holding {
		t.Run(name, func(t *testing.T) {
			p := serve(t, "tcp4", "127.0.0.1:0", "proxy")
			var threads atomic.Int64
			a := deciding(func(in fwps.Incoming) netip.AddrPort {
				if in.Remote == p {
					threads.Store(int64(threadsIn(t, way.waits)))
				}
				return in.Remote
			})
			require.Equal(t, "ok proxy\n", run(t, a, "held", name, p.String(), strconv.Itoa(calls)))
			require.NotZero(t, threads.Load())
			require.Less(t, int(threads.Load()), calls/4)
		})
	}
}

// A thread can exec by the number of one whose call is being answered. Who looks for its
// descriptors then is held up, and counts as that.
func TestExecThatIsHeldUp(t *testing.T) {
	asRoot(t)
	cmd := helper("exec held up")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	_, err = bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	server := childOf(t, cmd.Process.Pid)
	s, err := newSupervisor(t.Context(), Options{ALE: permit, Logf: t.Logf})
	require.NoError(t, err)
	defer s.stop()
	w := s.newWorker()
	w.n.TID = uint32(cmd.Process.Pid)
	taken := make(chan unix.Errno)
	require.Eventually(t, func() bool { // It is on its way there.
		go func() { taken <- w.take() }()
		for counted := 0; counted < 100; {
			select {
			case <-taken:
				unix.Close(w.fd)
				w.t.close()
				return false
			case <-time.After(time.Millisecond):
				if w.since.Load() != 0 {
					counted++
				}
			}
		}
		return true
	}, time.Minute, time.Millisecond, "it is held up, and does not count as that")
	require.NoError(t, unix.Kill(server, unix.SIGKILL))
	<-taken
	unix.Close(w.fd)
	w.t.close()
	_ = cmd.Wait()
}

func childOf(t testing.TB, parent int) (pid int) {
	all, err := filepath.Glob("/proc/[0-9]*")
	require.NoError(t, err)
	for _, dir := range all {
		if st, ok := readProcess(filepath.Base(dir)); ok && st.number("PPid:", 10) == uint64(parent) {
			pid, _ = strconv.Atoi(filepath.Base(dir))
		}
	}
	require.NotZero(t, pid)
	return pid
}

// threadsIn counts the threads of this process that are in a system call. Those of Go that
// do nothing are as many as it once needed.
func threadsIn(t testing.TB, call int) (n int) {
	all, err := os.ReadDir("/proc/self/task")
	require.NoError(t, err)
	for _, d := range all {
		b, _ := os.ReadFile("/proc/self/task/" + d.Name() + "/syscall") // It may be gone.
		if strings.HasPrefix(string(b), strconv.Itoa(call)+" ") {
			n++
		}
	}
	return n
}
