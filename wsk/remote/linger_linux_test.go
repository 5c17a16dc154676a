package remote_test

import (
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/wsk/ntstatus"
	"github.com/calloutd/calloutd/wsk/remote"
)

// lingering is a TCP socket whose last close lasts an hour, or until let is called.
func lingering(t *testing.T) (fd int, let func()) {
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	defer l.Close()
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	require.NoError(t, unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: l.Addr().(*net.TCPAddr).Port}))
	peer, err := l.AcceptTCP()
	require.NoError(t, err)
	t.Cleanup(func() { peer.Close() })
	require.NoError(t, unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 3600}))
	for b := make([]byte, 1<<16); err == nil; { // What the other end does not read is not acknowledged.
		_, err = unix.SendmsgN(fd, b, nil, nil, unix.MSG_DONTWAIT)
	}
	require.ErrorIs(t, err, unix.EAGAIN)
	return fd, func() { peer.Close() }
}

// held is a client that is turned away and left a lingering socket, which nobody else has.
func held(t *testing.T, o remote.Options) (s *site, let func()) {
	var calls atomic.Int32
	sent := make(chan struct{})
	o.Allow = func(remote.Peer) bool {
		<-sent
		return calls.Add(1) > 1
	}
	s = newSite(t, o)
	fd, let := lingering(t)
	t.Cleanup(let) // before the service is closed
	raw := s.raw()
	_, _, err := raw.WriteMsgUnix(packet(1, ""), unix.UnixRights(fd), nil)
	require.NoError(t, err)
	require.NoError(t, unix.Close(fd))
	close(sent)
	st, _ := status(t, raw)
	require.Equal(t, ntstatus.AccessDenied, st)
	return s, let
}

// Whoever is not let in can leave a descriptor behind whose close takes an hour. Others
// are served meanwhile.
func TestWhoIsTurnedAwayHoldsNobodyUp(t *testing.T) {
	s, _ := held(t, remote.Options{})
	for range 3 {
		c := s.raw()
		require.NoError(t, c.SetDeadline(time.Now().Add(time.Minute)))
		_, err := c.Write(packet(0, ""))
		require.NoError(t, err)
		st, _ := status(t, c)
		require.Equal(t, ntstatus.Success, st)
	}
}

// The service ends although such a descriptor is being closed yet.
func TestCloseDoesNotWaitForWhatClientsLeft(t *testing.T) {
	told := make(chan string, 16)
	s, let := held(t, remote.Options{Timeout: time.Millisecond, Logf: func(format string, _ ...any) { told <- format }})
	require.Contains(t, <-told, "was turned away")
	s.service.Close()
	require.Contains(t, <-told, "are being closed yet")
	let()
	eventually(t, "it is closed", func() bool {
		s.service.Close()
		select {
		case <-told:
			return false
		default:
			return true
		}
	})
}
