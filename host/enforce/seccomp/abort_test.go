//go:build linux && (amd64 || arm64)

package seccomp

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

func abortIf(which func(in *fwps.Incoming) bool) func(*fwps.Incoming, *fwps.Decision) {
	return func(in *fwps.Incoming, _ *fwps.Decision) {
		if which(in) {
			in.Flow.Abort()
		}
	}
}

// CO-FLW-03: a flow that a callout aborts while its program connects is reset, at both ends.
func TestConnectThatIsAborted(t *testing.T) {
	for _, at := range []fwpm.LayerID{fwpm.LayerALEAuthConnectV4, fwpm.LayerALEFlowEstablishedV4} {
		for program, want := range map[string]string{"dial": "ECONNRESET \n", "nonblocking": "ECONNRESET\n\nECONNRESET\nECONNRESET\n"} {
			t.Run(at.String()+" "+program, func(t *testing.T) {
				l := listen(t)
				policy := &layers{at: map[fwpm.LayerID]func(*fwps.Incoming, *fwps.Decision){at: abortIf(func(*fwps.Incoming) bool { return true })}}
				require.Equal(t, want, run(t, policy.enforcer(), program, l.addr.String()))
				fd, _, err := unix.Accept(l.fd)
				require.NoError(t, err)
				defer unix.Close(fd)
				_, err = unix.Read(fd, make([]byte, 1))
				require.ErrorIs(t, err, unix.ECONNRESET)
			})
		}
	}
}

// One that is aborted while it connects to another host is given up.
func TestConnectInProgressThatIsAborted(t *testing.T) {
	policy := &layers{at: map[fwpm.LayerID]func(*fwps.Incoming, *fwps.Decision){fwpm.LayerALEAuthConnectV4: abortIf(func(*fwps.Incoming) bool { return true })}}
	l, _, _ := full(t)
	require.Equal(t, "ECONNRESET\n\nECONNRESET\nECONNRESET\n", run(t, policy.enforcer(), "nonblocking", l.String()))
}

// One that is aborted while its program waits for it is given up, too.
func TestConnectThatIsAbortedWhileItWaits(t *testing.T) {
	policy := new(layers)
	flow := make(chan *fwps.Flow, 1)
	policy.at = map[fwpm.LayerID]func(*fwps.Incoming, *fwps.Decision){fwpm.LayerALEAuthConnectV4: func(in *fwps.Incoming, _ *fwps.Decision) { flow <- in.Flow }}
	l, _, closeIt := full(t)
	over := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		f := <-flow
		underWay(l)
		f.Abort()
		select {
		case <-over:
		case <-time.After(time.Minute):
			t.Error("it waits on")
			closeIt()
		}
	})
	require.Equal(t, "ECONNRESET \n", run(t, policy.enforcer(), "dial", l.String()))
	close(over)
}

// One that is aborted while it is accepted is reset, and the program gets the next.
func TestAcceptThatIsAborted(t *testing.T) {
	policy := &layers{at: map[fwpm.LayerID]func(*fwps.Incoming, *fwps.Decision){
		fwpm.LayerALEAuthRecvAcceptV4: abortIf(func(in *fwps.Incoming) bool { return in.Remote.Addr() == netip.MustParseAddr("127.0.0.7") })}}
	var aborted, next string
	watched(t, Options{ALE: policy.enforcer()}, helper("server", "blocking"), func(line string) {
		if addr, err := netip.ParseAddrPort(line); err == nil {
			aborted, next = client("127.0.0.7", addr), client("127.0.0.8", addr)
		}
	})
	require.Contains(t, aborted, "connection reset by peer")
	require.Equal(t, "hello", next)
}

// A datagram whose flow is aborted is not sent.
func TestDatagramThatIsAborted(t *testing.T) {
	for how := range senders {
		t.Run(how, func(t *testing.T) {
			to, got := udpServer(t, "server")
			aborts := true
			policy := &layers{at: map[fwpm.LayerID]func(*fwps.Incoming, *fwps.Decision){fwpm.LayerALEFlowEstablishedV4: abortIf(func(*fwps.Incoming) bool {
				was := aborts
				aborts = false
				return was
			})}}
			require.Equal(t, "ECONNRESET\n", run(t, policy.enforcer(), "udp", how, to.String()))
			require.Empty(t, got())
			require.Equal(t, "ok server ping\n", run(t, policy.enforcer(), "udp", how, to.String()))
		})
	}
}

// CO-FLW-03: a flow that is aborted after its connect() has returned is reset: before it is
// established, by its handle, and when it is.
func TestFlowUnderWayThatIsAborted(t *testing.T) {
	need(t)
	for _, where := range []string{"in progress", "established", "moved"} {
		t.Run(where, func(t *testing.T) {
			to, drain, closeIt := full(t)
			flows := make(chan *fwps.Flow, 1)
			policy := &layers{at: map[fwpm.LayerID]func(*fwps.Incoming, *fwps.Decision){
				fwpm.LayerALEAuthConnectV4:     func(in *fwps.Incoming, _ *fwps.Decision) { flows <- in.Flow },
				fwpm.LayerALEFlowEstablishedV4: abortIf(func(*fwps.Incoming) bool { return where == "established" }),
			}}
			var logged strings.Builder
			watched(t, Options{ALE: policy.enforcer(), Logf: func(format string, a ...any) { fmt.Fprintf(&logged, format, a...) }},
				helper("underway reads", to.String(), where), func(line string) {
					switch {
					case line != "goes on":
					case where == "established":
						drain()
					case where == "moved":
						(<-flows).Abort()
						closeIt()
					default:
						(<-flows).Abort()
					}
					if line != "EINPROGRESS" && line != "goes on" {
						require.Equal(t, map[bool]string{false: "ECONNRESET", true: "ECONNREFUSED"}[where == "moved"], line)
					}
				})
			require.Equal(t, where == "moved", strings.Contains(logged.String(), "it goes on where another has it"), logged.String())
		})
	}
}

// CO-FLW-03: a socket whose flow is aborted after its connect() has no peer any more, so that
// it sends nothing undecided, and a flow that it has left ends nothing.
func TestConnectedDatagramSocketWhoseFlowIsAborted(t *testing.T) {
	for _, where := range []string{"v4", "v6", "left", "moved"} {
		t.Run(where, func(t *testing.T) {
			to, got := udpServerAt(t, map[bool]string{false: "127.0.0.1", true: "::1"}[where == "v6"], "server")
			other, _ := udpServer(t, "other")
			flows := make(chan *fwps.Flow, 2)
			note := func(in *fwps.Incoming, _ *fwps.Decision) {
				if in.Remote == to {
					select {
					case flows <- in.Flow:
					default:
					}
				}
			}
			policy := &layers{at: map[fwpm.LayerID]func(*fwps.Incoming, *fwps.Decision){fwpm.LayerALEAuthConnectV4: note, fwpm.LayerALEAuthConnectV6: note}}
			in, say, err := os.Pipe()
			require.NoError(t, err)
			defer in.Close()
			defer say.Close()
			args := []string{where, to.String()}
			if where == "left" {
				args = append(args, other.String())
			}
			cmd := helper("udp goes on", args...)
			cmd.Stdin = in
			var lines []string
			var logged strings.Builder
			watched(t, Options{ALE: policy.enforcer(), Logf: func(format string, a ...any) { fmt.Fprintf(&logged, format, a...) }}, cmd, func(line string) {
				if lines = append(lines, line); line == "aborts" {
					(<-flows).Abort()
					_, _ = say.WriteString("x")
				}
			})
			switch where {
			case "left":
				require.Equal(t, "ok ok aborts ok ok ok other ping", strings.Join(lines, " "))
			case "moved":
				require.Equal(t, "ok aborts ok ok ok server ping", strings.Join(lines, " "))
			default:
				require.Equal(t, "ok aborts EDESTADDRREQ ok ok server pong", strings.Join(lines, " "))
				require.Equal(t, "pong", got())
			}
			require.Equal(t, where == "moved", strings.Contains(logged.String(), "it goes on where another has it"), logged.String())
		})
	}
}
