package transport_test

import (
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/wsk/transport"
)

// A tcp is what a *transport.Conn and a *net.TCPConn both are.
type tcp interface {
	end
	SetLinger(int) error
	SetKeepAliveConfig(net.KeepAliveConfig) error
	SetKeepAlive(bool) error
	SetNoDelay(bool) error
	SetReadBuffer(int) error
	SetWriteBuffer(int) error
}

// kinds are connections of package net, connections of ours that were accepted, and
// those that connected, each with its peer.
var kinds = map[string]func(t *testing.T) (c tcp, peer tcp){
	"package net": func(t *testing.T) (tcp, tcp) { a, b := connected(t); return a, b },
	"accepted":    func(t *testing.T) (tcp, tcp) { a, b := connected(t); return b, a },
	"connected": func(t *testing.T) (tcp, tcp) {
		l := listen(t)
		c, err := bind(t, wildcard, transport.Options{}).Connect(t.Context(), l.Local())
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
		peer, err := l.Accept()
		require.NoError(t, err)
		t.Cleanup(func() { peer.Close() })
		return c, peer
	},
}

func eachKind(t *testing.T, test func(t *testing.T, c, peer tcp)) {
	for name, open := range kinds {
		t.Run(name, func(t *testing.T) {
			c, peer := open(t)
			test(t, c, peer)
		})
	}
}

// isOf requires an error of package net, of an operation on a connection, with a cause.
func isOf(t *testing.T, err error, c tcp, op string, cause error) {
	t.Helper()
	var o *net.OpError
	require.ErrorAs(t, err, &o)
	require.Equal(t, op, o.Op)
	require.ErrorIs(t, err, cause)
	require.Equal(t, c.LocalAddr().String(), o.Source.String())
	require.Equal(t, c.RemoteAddr().String(), o.Addr.String())
}

func TestConnsFailAsThoseOfPackageNet(t *testing.T) {
	var b [8]byte
	t.Run("the end", func(t *testing.T) {
		eachKind(t, func(t *testing.T, c, peer tcp) {
			require.NoError(t, peer.CloseWrite())
			_, err := c.Read(b[:])
			require.Equal(t, io.EOF, err)
		})
	})
	t.Run("a reset", func(t *testing.T) {
		eachKind(t, func(t *testing.T, c, peer tcp) {
			require.NoError(t, peer.SetLinger(0))
			require.NoError(t, peer.Close())
			_, err := c.Read(b[:])
			isOf(t, err, c, "read", syscall.ECONNRESET)
			require.ErrorContains(t, err, "read: connection reset by peer")
			_, err = c.Write(b[:])
			isOf(t, err, c, "write", syscall.EPIPE)
		})
	})
	t.Run("what comes after the end is said", func(t *testing.T) {
		eachKind(t, func(t *testing.T, c, peer tcp) {
			require.NoError(t, c.CloseWrite())
			_, err := c.Write(b[:])
			isOf(t, err, c, "write", syscall.EPIPE)
		})
	})
	t.Run("a deadline", func(t *testing.T) {
		eachKind(t, func(t *testing.T, c, peer tcp) {
			require.NoError(t, c.SetDeadline(time.Unix(1, 0)))
			_, err := c.Read(b[:])
			isOf(t, err, c, "read", os.ErrDeadlineExceeded)
			_, err = c.Write(b[:])
			isOf(t, err, c, "write", os.ErrDeadlineExceeded)
			require.True(t, err.(net.Error).Timeout())
			require.NoError(t, c.SetDeadline(time.Time{}))
			_, err = c.Write(b[:])
			require.NoError(t, err)
		})
	})
	t.Run("one deadline", func(t *testing.T) {
		eachKind(t, func(t *testing.T, c, peer tcp) {
			require.NoError(t, c.SetReadDeadline(time.Unix(1, 0)))
			_, err := c.Write(b[:])
			require.NoError(t, err)
			_, err = c.Read(b[:])
			isOf(t, err, c, "read", os.ErrDeadlineExceeded)
			require.NoError(t, c.SetWriteDeadline(time.Unix(1, 0)))
			_, err = c.Write(b[:])
			isOf(t, err, c, "write", os.ErrDeadlineExceeded)
			require.NoError(t, c.SetReadDeadline(time.Time{}))
			_, err = peer.Write(b[:])
			require.NoError(t, err)
			_, err = c.Read(b[:])
			require.NoError(t, err)
		})
	})
	t.Run("an option that the system refuses", func(t *testing.T) {
		eachKind(t, func(t *testing.T, c, peer tcp) {
			err := c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Count: 1000})
			isOf(t, err, c, "set", syscall.EINVAL)
			require.ErrorContains(t, err, ": setsockopt: invalid argument")
		})
	})
	t.Run("an end that is said after a reset", func(t *testing.T) {
		eachKind(t, func(t *testing.T, c, peer tcp) {
			require.NoError(t, peer.SetLinger(0))
			require.NoError(t, peer.Close())
			_, err := c.Read(b[:])
			require.ErrorIs(t, err, syscall.ECONNRESET)
			err = c.CloseWrite()
			isOf(t, err, c, "close", syscall.ENOTCONN)
			require.ErrorContains(t, err, ": shutdown: transport endpoint is not connected")
		})
	})
	t.Run("a close", func(t *testing.T) {
		eachKind(t, func(t *testing.T, c, peer tcp) {
			raw, err := c.SyscallConn()
			require.NoError(t, err)
			read := make(chan error)
			go func() { _, err := c.Read(b[:]); read <- err }()
			require.NoError(t, c.Close())
			isOf(t, <-read, c, "read", net.ErrClosed)
			_, err = c.Write(b[:])
			isOf(t, err, c, "write", net.ErrClosed)
			isOf(t, c.CloseWrite(), c, "close", net.ErrClosed)
			for _, err := range []error{c.Close(), c.SetDeadline(time.Time{}), c.SetReadDeadline(time.Time{}), c.SetWriteDeadline(time.Time{}),
				c.SetLinger(0), c.SetNoDelay(true), c.SetKeepAlive(true), c.SetReadBuffer(1 << 16), c.SetWriteBuffer(1 << 16)} {
				require.ErrorIs(t, err, net.ErrClosed)
			}
			for op, err := range map[string]error{"raw-control": raw.Control(nil), "raw-read": raw.Read(nil), "raw-write": raw.Write(nil)} {
				var o *net.OpError
				require.ErrorAs(t, err, &o)
				require.Equal(t, op, o.Op)
				require.ErrorIs(t, err, net.ErrClosed)
			}
		})
	})
}

// option reads an option of the socket.
func option(t *testing.T, c syscall.Conn, level, name int) (v int) {
	t.Helper()
	raw, err := c.SyscallConn()
	require.NoError(t, err)
	var failed error
	require.NoError(t, raw.Control(func(fd uintptr) { v, failed = unix.GetsockoptInt(int(fd), level, name) }))
	require.NoError(t, failed)
	return v
}

func TestConnsBeginAsThoseOfPackageNet(t *testing.T) {
	eachKind(t, func(t *testing.T, c, _ tcp) {
		require.Equal(t, 1, option(t, c, unix.IPPROTO_TCP, unix.TCP_NODELAY))
		require.Equal(t, 1, option(t, c, unix.SOL_SOCKET, unix.SO_KEEPALIVE))
		require.Equal(t, 15, option(t, c, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE))
		require.Equal(t, 15, option(t, c, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL))
		require.Equal(t, 9, option(t, c, unix.IPPROTO_TCP, unix.TCP_KEEPCNT))
	})
}

func TestConnsTakeTheOptionsOfPackageNet(t *testing.T) {
	eachKind(t, func(t *testing.T, c, _ tcp) {
		require.NoError(t, c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 1500 * time.Millisecond, Interval: -1, Count: 3}))
		require.Equal(t, 2, option(t, c, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE))
		require.Equal(t, 15, option(t, c, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL))
		require.Equal(t, 3, option(t, c, unix.IPPROTO_TCP, unix.TCP_KEEPCNT))
		require.NoError(t, c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: time.Second + 1, Interval: time.Second, Count: -1}))
		require.Equal(t, 2, option(t, c, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE))
		require.Equal(t, 1, option(t, c, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL))
		require.Equal(t, 3, option(t, c, unix.IPPROTO_TCP, unix.TCP_KEEPCNT))
		require.NoError(t, c.SetKeepAliveConfig(net.KeepAliveConfig{}))
		require.Zero(t, option(t, c, unix.SOL_SOCKET, unix.SO_KEEPALIVE))
		require.Equal(t, 15, option(t, c, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE))
		require.Equal(t, 15, option(t, c, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL))
		require.Equal(t, 9, option(t, c, unix.IPPROTO_TCP, unix.TCP_KEEPCNT))
		require.NoError(t, c.SetKeepAlive(true))
		require.Equal(t, 1, option(t, c, unix.SOL_SOCKET, unix.SO_KEEPALIVE))
		require.NoError(t, c.SetNoDelay(false))
		require.Zero(t, option(t, c, unix.IPPROTO_TCP, unix.TCP_NODELAY))
		require.NoError(t, c.SetReadBuffer(1<<16))
		require.Equal(t, 1<<17, option(t, c, unix.SOL_SOCKET, unix.SO_RCVBUF), "Linux counts its own overhead too")
		require.NoError(t, c.SetWriteBuffer(1<<16))
		require.Equal(t, 1<<17, option(t, c, unix.SOL_SOCKET, unix.SO_SNDBUF))
		for seconds, want := range map[int]unix.Linger{7: {Onoff: 1, Linger: 7}, -1: {}} {
			require.NoError(t, c.SetLinger(seconds))
			raw, err := c.SyscallConn()
			require.NoError(t, err)
			require.NoError(t, raw.Control(func(fd uintptr) {
				got, err := unix.GetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER)
				require.NoError(t, err)
				require.Equal(t, want.Onoff, got.Onoff)
				require.True(t, got.Onoff == 0 || got.Linger == want.Linger)
			}))
		}
	})
}

// No child inherits a connection, and none of its descriptors blocks.
func TestConnsAreOurs(t *testing.T) {
	eachKind(t, func(t *testing.T, c, _ tcp) {
		raw, err := c.SyscallConn()
		require.NoError(t, err)
		require.NoError(t, raw.Control(func(fd uintptr) {
			flags, err := unix.FcntlInt(fd, unix.F_GETFD, 0)
			require.NoError(t, err)
			require.NotZero(t, flags&unix.FD_CLOEXEC)
			flags, err = unix.FcntlInt(fd, unix.F_GETFL, 0)
			require.NoError(t, err)
			require.NotZero(t, flags&unix.O_NONBLOCK)
		}))
	})
}

// Addresses are those that the system has, also of what was bound to any address.
func TestConnsKnowTheirAddresses(t *testing.T) {
	l, err := bind(t, wildcard, transport.Options{Listens: true}).Listen()
	require.NoError(t, err)
	defer l.Close()
	to := netip.AddrPortFrom(loopback.Addr(), l.Local().Port())
	c, err := bind(t, wildcard, transport.Options{}).Connect(t.Context(), to)
	require.NoError(t, err)
	defer c.Close()
	in, err := l.Accept()
	require.NoError(t, err)
	defer in.Close()
	require.Equal(t, to, in.Local())
	require.Equal(t, to, c.Remote())
	require.Equal(t, loopback.Addr(), c.Local().Addr())
	require.Equal(t, c.Local(), in.Remote())
}

func TestCloseEndsAnAccept(t *testing.T) {
	l := listen(t)
	accepted := make(chan error)
	go func() { _, err := l.Accept(); accepted <- err }()
	require.NoError(t, l.Close())
	require.ErrorIs(t, <-accepted, net.ErrClosed)
	_, err := l.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
}
