//go:build linux && (amd64 || arm64)

package cgroupbpf

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/redirect/memstore"
)

// daemon attaches to a cgroup with pins, blocks a port there, says what a connect of its
// own comes to, and waits to be killed.
func daemon(args string) string {
	cgroup, rest, _ := strings.Cut(args, " ")
	pins, to, _ := strings.Cut(rest, " ")
	at := netip.MustParseAddrPort(to)
	p := &fwpm.Policy{Filters: []fwpm.Filter{filter(1, authConnect, fwp.ActionBlock, port(at.Port()))}}
	engine := host.New(host.Options{})
	_, err := Attach(context.Background(), Options{Cgroup: cgroup, Policy: p, PinDir: pins, ALE: ale.New(ale.Options{Classifier: engine, Store: memstore.New(0)})})
	if err != nil {
		return err.Error()
	}
	fmt.Println(said(connectTo(socket(unix.AF_INET, unix.SOCK_STREAM, 0), at)))
	_, _ = io.Copy(io.Discard, os.Stdin)
	return "ended"
}

// numbered connects in a process of a certain number.
func numbered(number string, to netip.AddrPort) string {
	n, _ := strconv.Atoi(number)
	pid, sa := int32(n), bytesOf(to)
	args := struct{ flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize, cgroup uint64 }{
		exitSignal: uint64(unix.SIGCHLD), setTID: uint64(uintptr(unsafe.Pointer(&pid))), setTIDSize: 1}
	child, _, e := unix.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args), 0)
	if e != 0 {
		return "clone3 " + said(e)
	}
	if child == 0 {
		fd, _, _ := unix.RawSyscall(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM, 0)
		_, _, e := unix.RawSyscall(unix.SYS_CONNECT, fd, uintptr(unsafe.Pointer(&sa[0])), uintptr(len(sa)))
		unix.RawSyscall(unix.SYS_EXIT_GROUP, uintptr(e), 0, 0)
	}
	var ws unix.WaitStatus
	if _, err := unix.Wait4(int(child), &ws, 0, nil); err != nil {
		return said(err)
	}
	return said(errnoOrNil(unix.Errno(ws.ExitStatus())))
}

// Calloutd's own sockets are left alone. When it was killed a program can get its number,
// and is decided all the same.
func TestNumberOfAKilledDaemon(t *testing.T) {
	for _, inside := range []bool{false, true} {
		t.Run(fmt.Sprint("inside ", inside), func(t *testing.T) {
			at, count := reached(t, unix.SOCK_STREAM)
			s := pinned(t, new(fwpm.Policy), nil)
			own := filepath.Join(cgroupRoot(), filepath.Base(s.cgroup)+outside)
			if inside {
				own = filepath.Join(s.cgroup, "daemon")
			}
			require.NoError(t, os.Mkdir(own, 0o755))
			defer (&site{cgroup: own}).remove(t)
			dir, err := os.Open(own)
			require.NoError(t, err)
			defer dir.Close()
			d := exec.CommandContext(t.Context(), os.Args[0], "daemon/"+strings.Join([]string{s.cgroup, s.opts.PinDir, at.String()}, " "))
			d.Env = append(os.Environ(), "CALLOUTD_HELPER=1")
			d.SysProcAttr = &unix.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
			_, err = d.StdinPipe()
			require.NoError(t, err)
			out, err := d.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, d.Start())
			line, err := bufio.NewReader(out).ReadString('\n')
			require.NoError(t, err)
			require.Equal(t, "ok\n", line, "its own sockets are left alone")
			arrive(t, count, 1)
			require.NoError(t, d.Process.Kill())
			require.Error(t, d.Wait())
			defer func() { require.NoError(t, Detach(s.cgroup, s.opts.PinDir)) }()
			number := "number " + strconv.Itoa(d.Process.Pid) + "/" + at.String()
			require.Equal(t, "ok", native(t, number), "the number is free")
			arrive(t, count, 1)
			require.Equal(t, []string{"EACCES", "EACCES"}, s.run(t, "tcp/"+at.String(), number))
			require.Zero(t, count())
		})
	}
}
