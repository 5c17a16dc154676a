package remote_test

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/sdk/go/sockaddr"
	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/remote"
	"github.com/calloutd/calloutd/wsk/wsknet"
	"github.com/calloutd/calloutd/wsk/wsktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const destination = "198.51.100.7:80"

// A site is an engine whose callout sends every connection that is nobody's to a
// proxy with a plain socket, and the service that the proxy asks.
type site struct {
	*wsktest.Client
	t       testing.TB
	service *remote.Service
	path    string
	proxy   *net.TCPListener
	states  []redirect.State // in which the callout was asked
}

func newSite(t testing.TB, o remote.Options) *site {
	return newSiteAt(t, o, "tcp4", net.IPv4(127, 0, 0, 1))
}

// newSiteAt is one whose proxy listens elsewhere, and at 127.0.0.1 too.
func newSiteAt(t testing.TB, o remote.Options, network string, at net.IP) *site {
	s := &site{Client: wsktest.Open(t, wsk.Debug{}), t: t, path: filepath.Join(t.TempDir(), "remote.sock")}
	var err error
	s.proxy, err = net.ListenTCP(network, &net.TCPAddr{IP: at})
	require.NoError(t, err)
	t.Cleanup(func() { s.proxy.Close() })
	to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), s.proxy.Addr().(*net.TCPAddr).AddrPort().Port())
	s.AtConnect(t, func(c *fwps.Call, v *fwps.Verdict) {
		s.states = append(s.states, c.State)
		if c.State == redirect.NotRedirected && c.In.Remote.String() == destination {
			v.Redirect, v.To, v.TargetPID = true, to, uint32(os.Getpid())
			v.Context = sockaddr.Append(sockaddr.Append(v.Context, c.In.Remote), c.In.Local)
		}
	})
	s.serve(o)
	return s
}

// serve starts the service. Its listener is the file at s.path.
func (s *site) serve(o remote.Options) {
	o.ALE = s.ALE
	var err error
	s.service, err = remote.New(o)
	require.NoError(s.t, err)
	l, err := remote.Listen("unixpacket", s.path, 0o600)
	require.NoError(s.t, err)
	ended := make(chan error, 1)
	go func() { ended <- s.service.Serve(l) }()
	s.t.Cleanup(func() {
		s.service.Close()
		require.ErrorIs(s.t, <-ended, net.ErrClosed)
	})
}

func (s *site) client() *remote.Client {
	c, err := remote.Dial(s.t.Context(), s.path)
	require.NoError(s.t, err)
	s.t.Cleanup(func() { c.Close() })
	return c
}

// direct has a connection to the proxy that nobody redirected, and returns its end of it.
func (s *site) direct() *net.TCPConn {
	app, err := net.Dial("tcp4", s.proxy.Addr().String())
	require.NoError(s.t, err)
	s.t.Cleanup(func() { app.Close() })
	accepted, err := s.proxy.AcceptTCP()
	require.NoError(s.t, err)
	s.t.Cleanup(func() { accepted.Close() })
	return accepted
}

// redirected is a connection of an application, and the proxy's end of it.
func (s *site) redirected() (app *wsknet.Conn, accepted *net.TCPConn) {
	c, err := (&wsknet.Dialer{Client: s.Client.Client}).DialContext(s.t.Context(), "tcp", destination)
	require.NoError(s.t, err)
	s.t.Cleanup(c.(*wsknet.Conn).Abort)
	accepted, err = s.proxy.AcceptTCP()
	require.NoError(s.t, err)
	s.t.Cleanup(func() { accepted.Close() })
	return c.(*wsknet.Conn), accepted
}

// socket is a TCP socket that is not connected.
func socket(t testing.TB) *os.File {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	f := os.NewFile(uintptr(fd), "socket")
	t.Cleanup(func() { f.Close() })
	return f
}

// program is this one's path.
func program(t testing.TB) string {
	path, err := os.Executable()
	require.NoError(t, err)
	return path
}

func cookie(t testing.TB, f *os.File) uint64 {
	v, err := unix.GetsockoptUint64(int(f.Fd()), unix.SOL_SOCKET, unix.SO_COOKIE)
	require.NoError(t, err)
	return v
}

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	require.Eventually(t, is, time.Minute, time.Millisecond, what)
}

// descriptors are how many this process has.
func descriptors(t testing.TB) int {
	all, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(all)
}

func addr(t testing.TB, s string) netip.AddrPort {
	a, err := netip.ParseAddrPort(s)
	require.NoError(t, err)
	return a
}
