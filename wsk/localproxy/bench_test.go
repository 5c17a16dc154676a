package localproxy_test

import (
	"context"
	"io"
	"net"
	"net/netip"
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
		connections(b, func() (*net.TCPConn, error) {
			p := &program{in: fwps.Incoming{Protocol: fwps.ProtocolTCP, Local: netip.MustParseAddrPort("0.0.0.0:0"), Remote: end, ProcessID: 42, AppID: "/bin/app"}}
			f, err := w.ALE.Connect(b.Context(), p)
			if err == nil {
				f.Detach()
			}
			return p.conn, err
		})
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
