//go:build linux && (amd64 || arm64)

package seccomp

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect/memstore"
)

func init() {
	// abuse: that many processes connect as fast as they can, each is killed at some
	// time after it has begun and another one takes its place, until the input ends.
	programs["abuse"] = func(args []string) {
		enough := make(chan struct{})
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			close(enough)
		}()
		n, _ := strconv.Atoi(args[1])
		var slots sync.WaitGroup
		for range n {
			slots.Go(func() {
				for {
					c := helper("hammer", args[0])
					begun, err := c.StdoutPipe()
					check(err)
					check(c.Start())
					// On a busy machine it may take longer to begin than it has to live.
					_, err = io.ReadFull(begun, make([]byte, 1))
					check(err)
					select {
					case <-time.After(time.Duration(rand.IntN(20*n)) * time.Millisecond): // Else many do nothing but begin.
					case <-enough:
					}
					check(c.Process.Kill())
					_ = c.Wait()
					select {
					case <-enough:
						return
					default:
					}
				}
			})
		}
		slots.Wait()
		fd, e := dial(must(args[0]))
		abort(fd)
		say(name(e))
	}
	programs["hammer"] = func(args []string) {
		_, err := os.Stdout.Write([]byte("b"))
		check(err)
		for {
			fd, _ := dial(must(args[0]))
			abort(fd)
		}
	}
}

// An accountant counts what is decided about the programs, and what becomes of it.
type accountant struct {
	redirects, permits, established, failed, blocked atomic.Int64
	enough                                           int64
	stop                                             func()
	e                                                *ale.Enforcer
}

func newAccountant(t *testing.T, proxy netip.AddrPort) *accountant {
	a := &accountant{}
	own := uint32(os.Getpid())
	engine := host.New(host.Options{OnDecision: func(in *fwps.Incoming, d *fwps.Decision) {
		switch {
		case in.ProcessID == own || in.Inbound:
		case in.Layer == fwpm.LayerALEAuthConnectV4 && d.Action == fwp.ActionPermit:
			a.permits.Add(1)
		case in.Layer == fwpm.LayerALEFlowEstablishedV4:
			a.established.Add(1)
		}
	}})
	_, _, err := engine.RegisterCallout("c", fwps.CalloutFunc(func(_ context.Context, _ *fwps.Call, v *fwps.Verdict) error {
		v.Action, v.Redirect, v.To, v.TargetPID = fwp.ActionPermit, true, proxy, own
		return nil
	}))
	require.NoError(t, err)
	require.NoError(t, engine.Update(func(p *fwpm.Policy) error {
		p.Callouts = []fwpm.Callout{{ID: "c", Name: "c"}}
		p.Filters = []fwpm.Filter{{ID: 1, Name: "redirect", Layer: fwpm.LayerALEConnectRedirectV4, Action: fwp.ActionCalloutTerminating, Callout: "c"}}
		return nil
	}))
	a.e = ale.New(ale.Options{Classifier: engine, Store: memstore.New(0), OnRedirect: func(ev ale.RedirectEvent) {
		if ev.Err != nil {
			a.failed.Add(1)
		} else if a.redirects.Add(1) == a.enough {
			a.stop()
		}
	}})
	return a
}

// abuse lets so many connections be made, and returns what the heap holds afterwards.
func (a *accountant) abuse(t *testing.T, processes, connections int) uint64 {
	cmd := helper("abuse", test4, strconv.Itoa(processes))
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	var once sync.Once
	a.enough, a.stop = a.redirects.Load()+int64(connections), func() { once.Do(func() { in.Close() }) }
	defer a.stop()
	_, err = Run(t.Context(), Options{ALE: a.e, Logf: t.Logf, OnBlocked: func(enforce.Denial) { a.blocked.Add(1) }}, cmd)
	require.NoError(t, err)
	require.True(t, cmd.ProcessState.Success())
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// more are the descriptors that were not there before. One that was may be gone: of
// a connection that the proxy had not closed yet.
func more(before, after string) (left []string) {
	had := strings.Split(before, "\n")
	for _, d := range strings.Split(after, "\n") {
		if !slices.Contains(had, d) {
			left = append(left, d)
		}
	}
	return left
}

// Programs that are killed wherever they are leave nothing behind: no descriptor,
// goroutine, record or memory; and each decision has an outcome. CALLOUTD_ABUSE=full
// is a day's worth of it.
func TestAbuse(t *testing.T) {
	need(t)
	processes, connections := 10, 1000
	if os.Getenv("CALLOUTD_ABUSE") == "full" {
		processes, connections = 200, 100_000
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	var serving sync.WaitGroup
	defer serving.Wait()
	defer l.Close()
	a := newAccountant(t, l.Addr().(*net.TCPAddr).AddrPort())
	listening := a.e.NewSocket(fwps.Incoming{Protocol: fwps.ProtocolTCP, Local: l.Addr().(*net.TCPAddr).AddrPort(), ProcessID: uint32(os.Getpid())})
	defer listening.Close()
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if f, err := listening.Accept(context.Background(), c.LocalAddr().(*net.TCPAddr).AddrPort(), c.RemoteAddr().(*net.TCPAddr).AddrPort()); err == nil {
				f.Close()
			}
			c.Close()
		}
	})

	before := a.abuse(t, processes, connections/10)
	descriptorsBefore, goroutinesBefore := descriptors(t), runtime.NumGoroutine()
	start := time.Now()
	after := a.abuse(t, processes, connections)
	took := time.Since(start)

	// A connection that was reset in the backlog is nobody's: its record waits for
	// an accept that does not come, and is forgotten after two minutes.
	// require.Eventually would have goroutines of its own.
	for until := time.Now().Add(time.Minute); time.Now().Before(until) && (more(descriptorsBefore, descriptors(t)) != nil || runtime.NumGoroutine() > goroutinesBefore); {
		runtime.Gosched()
	}
	require.Empty(t, more(descriptorsBefore, descriptors(t)))
	require.LessOrEqual(t, runtime.NumGoroutine(), goroutinesBefore)
	permits, outcomes := a.permits.Load(), a.established.Load()+a.failed.Load()
	require.Equal(t, a.redirects.Load(), permits, "each redirect was authorized")
	require.Equal(t, permits, outcomes, "each decision has an outcome")
	require.Zero(t, a.blocked.Load())
	growth := int64(after) - int64(before)
	t.Logf("%d decisions in %v, %d of them of killed programs; %d records left; the heap grew by %d KiB", permits, took.Round(time.Millisecond), a.failed.Load(),
		a.e.LiveHops(), growth>>10)
	require.LessOrEqual(t, a.e.LiveHops(), connections/100+processes)
	require.Less(t, growth, int64(4<<20)+int64(connections)*64)
}
