//go:build unix && !solaris

package transport_test

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/net/nettest"

	"github.com/calloutd/calloutd/wsk/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	loopback = netip.MustParseAddrPort("127.0.0.1:0")
	wildcard = netip.MustParseAddrPort("0.0.0.0:0")
)

func bind(t *testing.T, a netip.AddrPort, o transport.Options) *transport.Socket {
	t.Helper()
	s, err := transport.Bind(a, o)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s
}

func listen(t *testing.T) *transport.Listener {
	t.Helper()
	l, err := bind(t, loopback, transport.Options{Listens: true}).Listen()
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	return l
}

func TestBoundSocketConnects(t *testing.T) {
	l := listen(t)
	s := bind(t, wildcard, transport.Options{})
	local := s.Local()
	c, err := s.Connect(t.Context(), l.Local())
	require.NoError(t, err)
	defer c.Close()
	in, err := l.Accept()
	require.NoError(t, err)
	defer in.Close()
	require.Equal(t, c.LocalAddr().String(), in.RemoteAddr().String())
	require.Equal(t, l.Local().String(), c.RemoteAddr().String())
	if local.Port() != 0 { // The system chose it at the bind.
		require.Equal(t, local.Port(), c.Local().Port())
	}
	_, err = c.Write([]byte("hello"))
	require.NoError(t, err)
	require.NoError(t, c.CloseWrite())
	got, err := io.ReadAll(in)
	require.NoError(t, err)
	require.Equal(t, "hello", string(got))
}

// A socket whose connect failed or was given up can try again, from the same port.
func TestConnectCanBeTriedAgain(t *testing.T) {
	s := bind(t, loopback, transport.Options{})
	local := s.Local()
	_, err := s.Connect(t.Context(), netip.MustParseAddrPort("127.0.0.1:1"))
	require.Error(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = s.Connect(ctx, netip.MustParseAddrPort("127.0.0.1:1"))
	require.Error(t, err)
	require.Equal(t, local, s.Local())
	l := listen(t)
	c, err := s.Connect(t.Context(), l.Local())
	require.NoError(t, err)
	c.Close()
}

func TestSharedAddress(t *testing.T) {
	o := transport.Options{Listens: true, Shared: true}
	a, err := bind(t, loopback, o).Listen()
	require.NoError(t, err)
	defer a.Close()
	b, err := bind(t, a.Local(), o).Listen()
	require.NoError(t, err)
	defer b.Close()
	_, err = transport.Bind(a.Local(), transport.Options{Listens: true})
	require.ErrorIs(t, err, syscall.EADDRINUSE)
}

// A listener is there again at once, although what it had accepted is in TIME_WAIT.
func TestListenerComesBack(t *testing.T) {
	l := listen(t)
	c, err := net.Dial("tcp", l.Local().String())
	require.NoError(t, err)
	in, err := l.Accept()
	require.NoError(t, err)
	require.NoError(t, in.Close())
	_, err = io.ReadAll(c)
	require.NoError(t, err)
	require.NoError(t, c.Close())
	require.NoError(t, l.Close())
	bind(t, l.Local(), transport.Options{Listens: true})
}

func TestFamilies(t *testing.T) {
	s := bind(t, loopback, transport.Options{})
	_, err := s.Connect(t.Context(), netip.MustParseAddrPort("[::1]:1"))
	require.ErrorContains(t, err, "is no address of an IPv4 socket")
	v6, err := transport.Bind(netip.MustParseAddrPort("[::1]:0"), transport.Options{DualStack: true})
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	defer v6.Close()
	_, err = v6.Connect(t.Context(), netip.MustParseAddrPort("127.0.0.1:1"))
	require.ErrorContains(t, err, "is no address of an IPv6 socket")
	_, err = transport.Bind(netip.MustParseAddrPort("[fe80::1%none]:0"), transport.Options{})
	require.ErrorContains(t, err, "no such network interface")
}

func TestUsedSocketIsClosed(t *testing.T) {
	l := listen(t)
	s := bind(t, loopback, transport.Options{})
	c, err := s.Connect(t.Context(), l.Local())
	require.NoError(t, err)
	defer c.Close()
	_, err = s.Connect(t.Context(), l.Local())
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = s.Listen()
	require.ErrorIs(t, err, net.ErrClosed)
	s = bind(t, loopback, transport.Options{})
	l, err = s.Listen()
	require.NoError(t, err)
	defer l.Close()
	_, err = s.Listen()
	require.ErrorIs(t, err, net.ErrClosed)
	s = bind(t, loopback, transport.Options{})
	s.Close()
	other := bind(t, loopback, transport.Options{})
	s.Close()
	c, err = other.Connect(t.Context(), l.Local())
	require.NoError(t, err, "it has the descriptor now")
	c.Close()
}

// Package net's own suite for connections.
func TestIsANetConn(t *testing.T) {
	l := listen(t)
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		a, err := bind(t, loopback, transport.Options{}).Connect(t.Context(), l.Local())
		require.NoError(t, err)
		b, err := l.Accept()
		require.NoError(t, err)
		return a, b, func() { a.Close(); b.Close() }, nil
	})
}

func TestPeerDone(t *testing.T) {
	l := listen(t)
	c, err := net.Dial("tcp", l.Local().String())
	require.NoError(t, err)
	in, err := l.Accept()
	require.NoError(t, err)
	defer in.Close()
	require.False(t, transport.PeerDone(in))
	_, err = c.Write([]byte("x"))
	require.NoError(t, err)
	require.NoError(t, c.Close())
	require.False(t, transport.PeerDone(in), "there is something to read first")
	_, err = io.ReadAll(in)
	require.NoError(t, err)
	require.True(t, transport.PeerDone(in))
	require.Positive(t, transport.SendBuffer(in))
	require.Zero(t, transport.Unread(in))
	in.Close()
	require.False(t, transport.PeerDone(in))
}

func TestAwaitPeerGone(t *testing.T) {
	l := listen(t)
	for name, c := range map[string]struct {
		peer func(*net.TCPConn)
		want bool
	}{
		"closes": {func(c *net.TCPConn) { c.Close() }, true},
		"resets": {func(c *net.TCPConn) { c.SetLinger(0); c.Close() }, true},
		"sends":  {func(c *net.TCPConn) { c.Write([]byte("x")) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			peer, err := net.Dial("tcp", l.Local().String())
			require.NoError(t, err)
			defer peer.Close()
			in, err := l.Accept()
			require.NoError(t, err)
			defer in.Close()
			gone := make(chan bool)
			go func() { gone <- transport.AwaitPeerGone(in) }()
			c.peer(peer.(*net.TCPConn))
			require.Equal(t, c.want, <-gone)
		})
	}
}
