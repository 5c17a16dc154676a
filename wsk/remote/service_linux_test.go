package remote_test

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/wsk/ntstatus"
	"github.com/calloutd/calloutd/wsk/remote"
	"github.com/calloutd/calloutd/wsk/winsock"
)

// The three queries about the socket that is passed, by the one API that proxies
// are written against.
func TestQueries(t *testing.T) {
	s := newSite(t, remote.Options{})
	c := s.client()
	_, accepted := s.redirected()
	conn := c.Conn(accepted)
	sealed, err := winsock.RedirectRecords(conn)
	require.NoError(t, err)
	require.Len(t, sealed, redirect.SealedLen(1), "RED-Q-09")
	left, err := winsock.RedirectContext(conn)
	require.NoError(t, err)
	require.Len(t, left, 256, "SC-06")
	to, err := winsock.OriginalDestination(conn)
	require.NoError(t, err)
	require.Equal(t, destination, to.String())
	rs, err := s.ALE.Open(sealed)
	require.NoError(t, err)
	require.Equal(t, "/bin/proxy", rs.Last().AppID)
	s.ALE.Release(rs)

	again, err := s.client().RedirectRecords(t.Context(), accepted)
	require.NoError(t, err)
	require.Equal(t, sealed, again, "RED-Q-10, whoever has the socket")
}

func TestSocketsWithoutRecords(t *testing.T) {
	s := newSite(t, remote.Options{})
	c := s.client()
	app, accepted := s.redirected()
	_, err := c.RedirectRecords(t.Context(), accepted)
	require.NoError(t, err)
	mine := s.direct()
	const not = "the connection was not redirected here"
	for name, x := range map[string]struct {
		conn syscall.Conn
		why  string
	}{
		"SC-01 not redirected": {mine, not}, "RED-Q-11 listening": {s.proxy, "an MPTCP connection is never redirected"},
		"RED-Q-11 not connected": {socket(t), "the socket is not connected"}, "SC-17 the application's": {system(t, app), not},
	} {
		_, err := c.RedirectRecords(t.Context(), x.conn)
		require.ErrorIs(t, err, ntstatus.NotFound, name)
		require.ErrorIs(t, err, fs.ErrNotExist, name)
		require.EqualError(t, err, "remote: query redirect records: STATUS_NOT_FOUND (RED-Q-11): "+x.why, name)
		_, err = c.OriginalDestination(t.Context(), x.conn)
		require.ErrorIs(t, err, ntstatus.NotFound, name)
	}
}

// system is the real socket under a connection of this process.
func system(t *testing.T, conn net.Conn) *os.File {
	local, to := conn.LocalAddr().(*net.TCPAddr).Port, conn.RemoteAddr().(*net.TCPAddr).Port
	for fd := range 4 * descriptors(t) {
		name, err := unix.Getsockname(fd)
		peer, perr := unix.Getpeername(fd)
		a, ok := name.(*unix.SockaddrInet4)
		b, pok := peer.(*unix.SockaddrInet4)
		if err != nil || perr != nil || !ok || !pok || a.Port != local || b.Port != to {
			continue
		}
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		require.NoError(t, err)
		f := os.NewFile(uintptr(dup), "socket")
		t.Cleanup(func() { f.Close() })
		return f
	}
	t.Fatal("no such connection")
	return nil
}

// What is no TCP socket of this network is refused, with the reason.
func TestOtherDescriptorsAreRefused(t *testing.T) {
	s := newSite(t, remote.Options{})
	c := s.client()
	file, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer file.Close()
	udp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	defer udp.Close()
	unixes, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	require.NoError(t, err)
	a, b := os.NewFile(uintptr(unixes[0]), "a"), os.NewFile(uintptr(unixes[1]), "b")
	defer a.Close()
	defer b.Close()
	for _, x := range []struct {
		name   string
		conn   syscall.Conn
		status ntstatus.Status
		why    string
	}{
		{"a file", file, ntstatus.InvalidHandle, "is no socket"},
		{"UDP", udp, ntstatus.NotSupported, "family 2, protocol 17"},
		{"AF_UNIX", a, ntstatus.NotSupported, "family 1, protocol 0"},
	} {
		_, err := c.RedirectContext(t.Context(), x.conn)
		require.ErrorIs(t, err, x.status, x.name)
		require.ErrorContains(t, err, x.why, x.name)
		raw, err := x.conn.SyscallConn()
		require.NoError(t, err)
		err = c.SetRedirectRecords(t.Context(), raw, []byte("records"))
		require.ErrorIs(t, err, x.status, x.name)
		require.ErrorContains(t, err, x.why, x.name)
	}
}

// The connect of an MPTCP socket is not seen with its records, so it cannot have any.
func TestMPTCPSocketsHaveNoRecords(t *testing.T) {
	s := newSite(t, remote.Options{})
	raw, err := s.proxy.SyscallConn() // Go's listeners are.
	require.NoError(t, err)
	err = s.client().SetRedirectRecords(t.Context(), raw, []byte("records"))
	require.EqualError(t, err, "remote: set redirect records: STATUS_NOT_SUPPORTED: an MPTCP socket cannot have redirect records: make it a TCP socket")
}

// The same addresses mean another connection in another network.
func TestSocketsOfOtherNetworksAreRefused(t *testing.T) {
	s := newSite(t, remote.Options{})
	c := s.client()
	made := make(chan *os.File)
	go func() { // The thread ends with the goroutine: it stays in the other network.
		runtime.LockOSThread()
		flags := unix.CLONE_NEWNET
		if os.Geteuid() != 0 {
			close(made) // A process of several threads cannot make a user namespace.
			return
		}
		if err := unix.Unshare(flags); err != nil {
			close(made)
			return
		}
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			close(made)
			return
		}
		made <- os.NewFile(uintptr(fd), "socket")
	}()
	f := <-made
	if f == nil {
		require.Empty(t, os.Getenv("CI"), "CI runs as root")
		t.Skip("needs root")
	}
	defer f.Close()
	_, err := c.RedirectRecords(t.Context(), f)
	require.ErrorIs(t, err, fs.ErrPermission)
	require.ErrorContains(t, err, "another network namespace")
}

func TestEntitlement(t *testing.T) {
	var st *remote.StatusError
	t.Run("AMB-06 strict queries are for the target process", func(t *testing.T) {
		s := newSite(t, remote.Options{StrictQueries: true})
		_, accepted := s.redirected()
		_, err := s.client().RedirectRecords(t.Context(), accepted)
		require.NoError(t, err)
		mine := s.direct()
		_, err = s.client().RedirectRecords(t.Context(), mine)
		require.ErrorIs(t, err, ntstatus.NotFound, "it was redirected to nobody")
	})
	t.Run("AMB-06 and for nobody else", func(t *testing.T) {
		s := newSite(t, remote.Options{StrictQueries: true})
		_, accepted := s.redirected()
		out := child(t, s.path, accepted)
		require.Contains(t, out, "STATUS_ACCESS_DENIED (AMB-06): the connection was redirected to process ")
	})
	t.Run("SC-39 who may not set records", func(t *testing.T) {
		s := newSite(t, remote.Options{MaySetRecords: func(p remote.Peer) bool { return p.PID != uint32(os.Getpid()) }})
		raw, err := socket(t).SyscallConn()
		require.NoError(t, err)
		require.ErrorAs(t, s.client().SetRedirectRecords(t.Context(), raw, []byte("x")), &st)
		require.Equal(t, "SC-39", st.Rule)
		require.Equal(t, ntstatus.AccessDenied, st.Status)
		require.Equal(t, fmt.Sprintf("user %d may not set redirect records", os.Geteuid()), st.Why)
	})
	t.Run("who may be a client unless somebody says", func(t *testing.T) {
		s := newSite(t, remote.Options{})
		st, why := status(t, s.as(1000))
		require.Equal(t, ntstatus.AccessDenied, st)
		require.Equal(t, "user 1000 may not be a client of this service", why)
	})
	t.Run("who may not be a client", func(t *testing.T) {
		s := newSite(t, remote.Options{Allow: func(p remote.Peer) bool { return p.UID != uint32(os.Geteuid()) }})
		for range 2 { // The first has been dealt with when the second is.
			_, err := remote.Dial(t.Context(), s.path)
			require.ErrorAs(t, err, &st)
			require.Equal(t, ntstatus.AccessDenied, st.Status)
			require.Contains(t, st.Why, "may not be a client of this service")
		}
		require.Equal(t, remote.Stats{Refused: 2}, s.service.Stats(), "nothing is asked for them")
		require.Zero(t, s.service.Users())
	})
}

// AUTH_RECV_ACCEPT is asked about the process that shows the socket, and about that socket.
func TestThePolicyHearsWhoAsks(t *testing.T) {
	s := newSite(t, remote.Options{})
	var in fwps.Incoming
	_, _, err := s.Engine.RegisterCallout("hears", fwps.CalloutFunc(func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
		v.Action, in = fwp.ActionPermit, *c.In
		return nil
	}))
	require.NoError(t, err)
	s.Add(t, fwpm.Filter{ID: 9, Name: "hears", Layer: fwpm.LayerALEAuthRecvAcceptV4, Action: fwp.ActionCalloutUnknown, Callout: "hears"})
	app, accepted := s.redirected()
	_, err = s.client().RedirectRecords(t.Context(), accepted)
	require.NoError(t, err)
	f, err := accepted.File()
	require.NoError(t, err)
	defer f.Close()
	require.Equal(t, program(t), in.AppID)
	require.EqualValues(t, os.Getpid(), in.ProcessID)
	require.True(t, in.UserKnown)
	require.EqualValues(t, os.Geteuid(), in.UserID)
	require.Equal(t, cookie(t, f), in.EndpointID)
	require.Equal(t, addr(t, app.LocalAddr().String()), in.Remote)
	require.Equal(t, addr(t, s.proxy.Addr().String()), in.Local)
}

// A connection that the policy does not let in is refused with what blocked it,
// then and later.
func TestThePolicyRefusesTheAccept(t *testing.T) {
	s := newSite(t, remote.Options{})
	c := s.client()
	_, accepted := s.redirected()
	_, before := s.redirected()
	_, err := c.RedirectContext(t.Context(), before)
	require.NoError(t, err)
	s.Add(t, fwpm.Filter{ID: 9, Name: "nobody comes in", Layer: fwpm.LayerALEAuthRecvAcceptV4, Action: fwp.ActionBlock})
	for range 2 {
		_, err := c.RedirectContext(t.Context(), accepted)
		require.ErrorIs(t, err, fs.ErrPermission)
		require.ErrorContains(t, err, ` blocked at ALE_AUTH_RECV_ACCEPT_V4 by filter 9 "nobody comes in"`)
		require.ErrorContains(t, err, "STATUS_ACCESS_DENIED (ARB-01): ")
		_, err = c.RedirectContext(t.Context(), before)
		require.ErrorIs(t, err, fs.ErrPermission, "ALE-LAY-12")
	}
	require.NoError(t, s.Engine.Update(func(p *fwpm.Policy) error { p.Filters = p.Filters[:1]; return nil }))
	_, err = c.RedirectContext(t.Context(), accepted)
	require.ErrorIs(t, err, fs.ErrPermission, "for good, as where the system refuses it")
}

// A connection whose decision took too long is refused for good too, and for that reason: its
// records are gone, and who asked again would hear that it was not redirected.
func TestADecisionThatTakesTooLong(t *testing.T) {
	s := newSite(t, remote.Options{Timeout: 10 * time.Millisecond})
	wait := func(ctx context.Context) { <-ctx.Done() }
	_, _, err := s.Engine.RegisterCallout("slow", fwps.CalloutFunc(func(ctx context.Context, _ *fwps.Call, v *fwps.Verdict) error {
		v.Action = fwp.ActionPermit
		wait(ctx)
		wait = func(context.Context) {}
		return nil
	}))
	require.NoError(t, err)
	s.Add(t, fwpm.Filter{ID: 9, Name: "slow", Layer: fwpm.LayerALEAuthRecvAcceptV4, Action: fwp.ActionCalloutUnknown, Callout: "slow"})
	_, accepted := s.redirected()
	for range 2 {
		_, err = s.client().RedirectContext(t.Context(), accepted)
		require.ErrorIs(t, err, ntstatus.IOTimeout)
		require.ErrorContains(t, err, "the decision took too long")
	}
}

// SC-30: the proxy's own socket has the records, and its connect is the callout's.
func TestSetRecords(t *testing.T) {
	s := newSite(t, remote.Options{})
	c := s.client()
	_, accepted := s.redirected()
	sealed, err := c.RedirectRecords(t.Context(), accepted)
	require.NoError(t, err)
	f := socket(t)
	raw, err := f.SyscallConn()
	require.NoError(t, err)
	require.Nil(t, s.service.TakeRecords(cookie(t, f)))
	for range 2 { // SC-41
		require.NoError(t, winsock.SetRedirectRecords(c.RawConn(raw), sealed))
	}
	require.Equal(t, 1, s.service.Stats().Outbound)

	// What a backend does that sees the socket connect.
	out := s.ALE.NewSocket(fwps.Incoming{Protocol: fwps.ProtocolTCP, Local: addr(t, "0.0.0.0:0"), Records: s.service.TakeRecords(cookie(t, f))})
	s.states = nil
	flow, err := out.Connect(t.Context(), addr(t, destination), func(_ context.Context, to ale.Target) (netip.AddrPort, error) {
		require.Equal(t, destination, to.Remote.String())
		return addr(t, "127.0.0.1:1"), nil
	})
	require.NoError(t, err)
	require.Equal(t, []redirect.State{redirect.RedirectedBySelf}, s.states)
	flow.Close()
	out.Close()
	require.Nil(t, s.service.TakeRecords(cookie(t, f)), "once")
}

func TestRecordsThatCannotBeSet(t *testing.T) {
	s := newSite(t, remote.Options{})
	c := s.client()
	_, accepted := s.redirected()
	sealed, err := c.RedirectRecords(t.Context(), accepted)
	require.NoError(t, err)
	raw, err := socket(t).SyscallConn()
	require.NoError(t, err)
	forged := append([]byte(nil), sealed...)
	forged[len(forged)-1] ^= 1
	for _, x := range []struct {
		name, rule string
		records    []byte
		status     ntstatus.Status
	}{
		{"SC-38 random bytes", "AMB-13", make([]byte, 16), ntstatus.AccessDenied},
		{"AMB-13 a seal that does not fit", "AMB-13", forged, ntstatus.AccessDenied},
		{"SC-40 none", "SC-40", nil, ntstatus.InvalidParameter},
		{"as much as a message has", "AMB-13", make([]byte, redirect.MaxBlob), ntstatus.AccessDenied},
		{"more than a message has", "", make([]byte, redirect.MaxBlob+1), ntstatus.InvalidParameter},
	} {
		var st *remote.StatusError
		require.ErrorAs(t, c.RawConn(raw).SetRedirectRecords(t.Context(), x.records), &st, x.name)
		require.Equal(t, x.status, st.Status, x.name)
		require.Equal(t, x.rule, st.Rule, x.name)
	}
	require.EqualError(t, c.RawConn(raw).SetRedirectRecords(t.Context(), make([]byte, redirect.MaxBlob+1)),
		"remote: set redirect records: STATUS_INVALID_PARAMETER: 4097 bytes, the most is 4096")
	connected, err := accepted.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, c.SetRedirectRecords(t.Context(), connected, sealed), "SC-42")
	require.Zero(t, s.service.Stats().Outbound)
}

// AMB-19: what is known about a socket goes when no process has it any more, and
// the record with it, while the service lives.
func TestClosedSocketsAreForgotten(t *testing.T) {
	s := newSite(t, remote.Options{Sweep: time.Millisecond})
	c := s.client()
	app, accepted := s.redirected()
	_, err := c.RedirectContext(t.Context(), accepted)
	require.NoError(t, err)
	require.Equal(t, 1, s.service.Stats().Sockets)
	require.NoError(t, accepted.Close())
	_, err = io.ReadAll(app)
	require.NoError(t, err, "the service does not hold the connection open")
	app.Close()
	eventually(t, "the socket is forgotten", func() bool { return s.service.Stats().Sockets == 0 })
	eventually(t, "its record goes", func() bool { return s.Store.Len() == 0 })
}

// Only the sockets that no process has are forgotten. The kernel finds those of a proxy that
// listens on one device, as it does those with link-local addresses, by the device.
func TestSocketsThatLiveAreNotForgotten(t *testing.T) {
	for _, device := range []string{"", "lo"} {
		s := newSite(t, remote.Options{Sweep: time.Hour})
		raw, err := s.proxy.SyscallConn()
		require.NoError(t, err)
		require.NoError(t, raw.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), device) }))
		require.NoError(t, err)
		c := s.client()
		known := func(n int) {
			require.NoError(t, s.service.Sweep(time.Now()))
			require.Equal(t, n, s.service.Stats().Sockets, "device %q", device)
		}
		var all []*net.TCPConn
		for range 3 {
			_, accepted := s.redirected()
			_, err = c.RedirectRecords(t.Context(), accepted)
			require.NoError(t, err)
			all = append(all, accepted)
		}
		known(3)
		require.NoError(t, all[0].Close())
		known(2)
		require.NoError(t, all[1].SetLinger(0))
		require.NoError(t, all[1].Close()) // A reset: the kernel has nothing of it any more.
		known(1)
	}
}

// Records that were set wait two minutes for the connect of their socket.
func TestRecordsThatNobodyConnectsWithAreForgotten(t *testing.T) {
	s := newSite(t, remote.Options{Sweep: time.Hour})
	c := s.client()
	app, accepted := s.redirected()
	sealed, err := c.RedirectRecords(t.Context(), accepted)
	require.NoError(t, err)
	raw, err := socket(t).SyscallConn()
	require.NoError(t, err)
	began := time.Now()
	require.NoError(t, c.SetRedirectRecords(t.Context(), raw, sealed))
	app.Abort()
	require.NoError(t, accepted.Close())
	require.NoError(t, s.service.Sweep(began.Add(2*time.Minute-time.Millisecond)))
	require.Equal(t, 1, s.service.Stats().Outbound)
	require.Equal(t, 1, s.Store.Len())
	require.NoError(t, s.service.Sweep(time.Now().Add(2*time.Minute)))
	require.Zero(t, s.service.Stats().Outbound)
	require.Zero(t, s.Store.Len())
}

// What a service does is counted. That a connection was not redirected is no refusal.
func TestFigures(t *testing.T) {
	s := newSite(t, remote.Options{})
	c := s.client()
	_, err := c.RedirectContext(t.Context(), socket(t))
	require.ErrorIs(t, err, ntstatus.NotFound)
	require.Equal(t, remote.Stats{Clients: 1, Requests: 2}, s.service.Stats())
	raw, err := socket(t).SyscallConn()
	require.NoError(t, err)
	require.Error(t, c.SetRedirectRecords(t.Context(), raw, []byte("forged")))
	require.Equal(t, remote.Stats{Clients: 1, Requests: 3, Refused: 1}, s.service.Stats())
	no := s.raw()
	_, err = no.Write([]byte("HTTP"))
	require.NoError(t, err)
	status(t, no)
	require.EqualValues(t, 2, s.service.Stats().Refused)
}

// SC-41: what was set before is let go of.
func TestRecordsThatAreReplacedAreLetGo(t *testing.T) {
	s := newSite(t, remote.Options{Sweep: time.Hour})
	c := s.client()
	raw, err := socket(t).SyscallConn()
	require.NoError(t, err)
	for range 2 {
		app, accepted := s.redirected()
		sealed, err := c.RedirectRecords(t.Context(), accepted)
		require.NoError(t, err)
		require.NoError(t, c.SetRedirectRecords(t.Context(), raw, sealed))
		app.Abort()
		require.NoError(t, accepted.Close())
		require.NoError(t, s.service.Sweep(time.Now()))
		require.Equal(t, 1, s.Store.Len())
	}
}

// A dual-stack proxy sees v4-mapped addresses; the connection is the same.
func TestDualStackProxy(t *testing.T) {
	s := newSiteAt(t, remote.Options{Sweep: time.Millisecond}, "tcp", nil)
	_, accepted := s.redirected()
	to, err := s.client().OriginalDestination(t.Context(), accepted)
	require.NoError(t, err)
	require.Equal(t, destination, to.String())
	accepted.Close()
	eventually(t, "the socket is forgotten", func() bool { return s.service.Stats().Sockets == 0 })
}

func TestListenReplacesWhatWasLeftBehind(t *testing.T) {
	path := t.TempDir() + "/s"
	l, err := remote.Listen("unixpacket", path, 0o600)
	require.NoError(t, err)
	_, err = remote.Listen("unixpacket", path, 0o600)
	require.ErrorIs(t, err, syscall.EADDRINUSE, "somebody listens")
	l.SetUnlinkOnClose(false)
	l.Close()
	l, err = remote.Listen("unixpacket", path, 0o640)
	require.NoError(t, err)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o640), info.Mode().Perm())
	l.Close()
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	_, err = remote.Listen("unixpacket", path, 0o600)
	require.ErrorIs(t, err, fs.ErrExist, "a file is not a socket that was left")
	path = "/tmp/" + strings.Repeat("s", 200)
	_, err = remote.Listen("unixpacket", path, 0o600)
	require.ErrorContains(t, err, path+": the path of a socket has 107 bytes at most, this one 205: ")
}
