package localproxy_test

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/localproxy"
	"github.com/calloutd/calloutd/wsk/wsktest"
)

// serve runs a function for each connection to a listener of its own.
func serve(t testing.TB, each func(*net.TCPConn)) netip.AddrPort {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { each(c.(*net.TCPConn)) })
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// plain relays a connection as a program does that knows package net only.
func plain(in *net.TCPConn, to netip.AddrPort) {
	defer in.Close()
	out, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(to))
	if err != nil {
		in.SetLinger(0)
		return
	}
	defer out.Close()
	var wg sync.WaitGroup
	wg.Go(func() {
		io.Copy(in, out)
		in.CloseWrite()
	})
	io.Copy(out, in)
	out.CloseWrite()
	wg.Wait()
}

// A program is one that the engine redirects and that is no client of WSK, like
// those of calloutd run.
type program struct {
	in   fwps.Incoming
	conn *net.TCPConn
}

func (p *program) Incoming() fwps.Incoming { return p.in }

func (p *program) Connect(_ context.Context, to netip.AddrPort) (netip.AddrPort, error) {
	c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(to))
	if err != nil {
		return netip.AddrPort{}, err
	}
	p.conn = c
	return c.LocalAddr().(*net.TCPAddr).AddrPort(), nil
}

// redirected dials as such a program.
func (w *world) redirected(ctx context.Context, to netip.AddrPort) func() (*net.TCPConn, error) {
	return func() (*net.TCPConn, error) {
		p := &program{in: fwps.Incoming{Protocol: fwps.ProtocolTCP, Local: netip.MustParseAddrPort("0.0.0.0:0"), Remote: to, ProcessID: 42, AppID: "/bin/app"}}
		f, err := w.ALE.Connect(ctx, p)
		if err == nil {
			f.Detach()
		}
		return p.conn, err
	}
}

// Connections that a server ends at once, of 64 clients, by a relay that package
// net makes and by forward.
func BenchmarkConnections(b *testing.B) {
	end := serve(b, func(c *net.TCPConn) { c.Close() })
	b.Run("plain", func(b *testing.B) {
		relay := serve(b, func(in *net.TCPConn) { plain(in, end) })
		connections(b, func() (*net.TCPConn, error) { return net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(relay)) })
	})
	b.Run("forward", func(b *testing.B) {
		w := &world{Client: wsktest.Open(b, wsk.Debug{}), t: b}
		w.start(localproxy.Forward, true)
		connections(b, w.redirected(b.Context(), end))
		require.Empty(b, w.said)
	})
}

func connections(b *testing.B, dial func() (*net.TCPConn, error)) {
	b.SetParallelism(32)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			c, err := dial()
			if err != nil {
				b.Error(err)
				return
			}
			if _, err := io.Copy(io.Discard, c); err != nil {
				b.Error(err)
			}
			c.Close()
		}
	})
}

// What a connection holds in which nothing moves: memory of the process, with both
// ends, and descriptors. Run it with -benchtime 1000x.
func BenchmarkIdle(b *testing.B) {
	hold := func(t testing.TB) (netip.AddrPort, <-chan struct{}) {
		ready := make(chan struct{})
		return serve(t, func(c *net.TCPConn) {
			defer c.Close()
			io.ReadFull(c, make([]byte, 1))
			c.Write([]byte{0})
			ready <- struct{}{}
			io.Copy(io.Discard, c)
		}), ready
	}
	b.Run("plain", func(b *testing.B) {
		end, ready := hold(b)
		relay := serve(b, func(in *net.TCPConn) { plain(in, end) })
		idle(b, ready, func() (*net.TCPConn, error) { return net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(relay)) })
	})
	b.Run("forward", func(b *testing.B) {
		end, ready := hold(b)
		w := &world{Client: wsktest.Open(b, wsk.Debug{}), t: b}
		w.start(localproxy.Forward, true)
		idle(b, ready, w.redirected(b.Context(), end))
	})
}

// idle opens b.N connections, moves a byte both ways in each, and says what they hold.
func idle(b *testing.B, ready <-chan struct{}, dial func() (*net.TCPConn, error)) {
	before := holds()
	var conns []*net.TCPConn
	for range b.N {
		c, err := dial()
		require.NoError(b, err)
		_, err = c.Write([]byte{0})
		require.NoError(b, err)
		_, err = io.ReadFull(c, make([]byte, 1))
		require.NoError(b, err)
		<-ready
		conns = append(conns, c)
	}
	after := holds()
	b.ReportMetric(float64(after.heap-before.heap)/float64(b.N), "heap-B/conn")
	b.ReportMetric(float64(after.stacks-before.stacks)/float64(b.N), "stack-B/conn")
	b.ReportMetric(float64(after.files-before.files)/float64(b.N), "files/conn")
	b.ReportMetric(0, "ns/op")
	for _, c := range conns {
		c.Close()
	}
}

type holding struct{ heap, stacks, files int }

func holds() holding {
	var m runtime.MemStats
	for range 3 { // Stacks shrink, and pools are emptied.
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	files, _ := os.ReadDir("/proc/self/fd") // Linux; elsewhere it is zero.
	return holding{int(m.HeapInuse), int(m.StackInuse), len(files)}
}
