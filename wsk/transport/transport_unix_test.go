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

// A listener whose backlog is full leaves connects waiting: those can be given up.
func TestConnectCanBeGivenUp(t *testing.T) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	require.NoError(t, err)
	defer syscall.Close(fd)
	require.NoError(t, syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	require.NoError(t, syscall.Listen(fd, 0))
	name, err := syscall.Getsockname(fd)
	require.NoError(t, err)
	full := netip.AddrPortFrom(loopback.Addr(), uint16(name.(*syscall.SockaddrInet4).Port))

	ctx, cancel := context.WithCancel(t.Context())
	results := make(chan error)
	var conns []net.Conn
	const tries = 6
	started := make(chan net.Conn, tries)
	for range tries {
		s := bind(t, loopback, transport.Options{})
		go func() {
			c, err := s.Connect(ctx, full)
			if err == nil {
				started <- c
				return
			}
			results <- err
		}()
	}
	// The kernel takes one or two, and no answer comes for the others.
	conns = append(conns, <-started)
	cancel()
	for range tries - 1 {
		select {
		case c := <-started:
			conns = append(conns, c)
		case err := <-results:
			require.ErrorIs(t, err, context.Canceled)
		}
	}
	require.Less(t, len(conns), tries)
	for _, c := range conns {
		c.Close()
	}
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
