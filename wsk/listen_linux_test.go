package wsk_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// An accept that fails for want of descriptors is tried again: the listener
// lives on. The test needs a process of its own.
func TestAcceptSurvivesWantOfDescriptors(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), withoutDescriptors+"=1")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "accepted after the want")
}

func acceptWithoutDescriptors() {
	w, end := build(wsk.Debug{})
	_, l := run(func(p *wsk.IRP) ntstatus.Status {
		return w.Socket(wsk.AFInet, wsk.SockStream, wsk.IPProtoTCP, wsk.ListenSocket, nil, nil, nil, 0, p)
	})
	run(func(p *wsk.IRP) ntstatus.Status { return l.Bind(loopback, 0, p) })
	var at netip.AddrPort
	run(func(p *wsk.IRP) ntstatus.Status { return l.GetLocalAddress(&at, p) })
	accepted := make(chan *wsk.Socket)
	go func() {
		_, s := run(func(p *wsk.IRP) ntstatus.Status { return l.Accept(0, nil, nil, nil, nil, p) })
		accepted <- s
	}()

	var old syscall.Rlimit
	d := net.Dialer{Control: func(_, _ string, _ syscall.RawConn) error {
		// The socket is there; from now on there are no more descriptors.
		if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
			return err
		}
		return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 3, Max: old.Max})
	}}
	conn, err := d.DialContext(context.Background(), "tcp4", at.String())
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for !backingOff() {
		runtime.Gosched()
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	s := <-accepted
	conn.Close()
	run(s.CloseSocket)
	run(l.CloseSocket)
	end()
	fmt.Println("accepted after the want")
	os.Exit(0)
}

// backingOff tells whether the accept loop waits after a failure: it is in its
// own select, and not in accept.
func backingOff() bool {
	buf := make([]byte, 1<<20)
	for g := range bytes.SplitSeq(buf[:runtime.Stack(buf, true)], []byte("\n\n")) {
		lines := strings.Split(string(g), "\n")
		if len(lines) > 1 && strings.Contains(lines[0], "[select") && strings.Contains(lines[1], "wsk.(*listener).next(") {
			return true
		}
	}
	return false
}
