package remote_test

import (
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/wsk/ntstatus"
	"github.com/calloutd/calloutd/wsk/remote"
)

// lingering is a TCP socket whose last close lasts an hour, but for a signal.
func lingering(t *testing.T) int {
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	defer l.Close()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
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
	return fd
}

// nested is a socket with another in its queue, of which there is no descriptor.
func nested(t *testing.T, fd int) int {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	require.NoError(t, unix.Sendmsg(ends[1], []byte("x"), unix.UnixRights(fd), nil, 0))
	require.NoError(t, unix.Close(fd))
	require.NoError(t, unix.Close(ends[1]))
	return ends[0]
}

// turnedAway is a site whose first clients were turned away, after each had sent a descriptor.
func turnedAway(t *testing.T, o remote.Options, fds ...int) *site {
	var calls atomic.Int32
	sent := make(chan struct{})
	o.Allow = func(remote.Peer) bool {
		<-sent
		return int(calls.Add(1)) > len(fds)
	}
	s := newSite(t, o)
	var all []*net.UnixConn
	for _, fd := range fds {
		raw := s.raw()
		require.NoError(t, raw.SetDeadline(time.Now().Add(time.Minute)))
		_, _, err := raw.WriteMsgUnix(packet(1, ""), unix.UnixRights(fd), nil)
		require.NoError(t, err)
		all = append(all, raw)
	}
	for _, fd := range fds {
		require.NoError(t, unix.Close(fd))
	}
	close(sent)
	for _, raw := range all {
		st, _ := status(t, raw)
		require.Equal(t, ntstatus.AccessDenied, st)
	}
	return s
}

// Whoever is not let in can leave a descriptor behind whose close takes an hour. Others
// are served meanwhile, also when there is no room for more that are turned away.
func TestWhoIsTurnedAwayHoldsNobodyUp(t *testing.T) {
	s := turnedAway(t, remote.Options{MaxClients: 1}, lingering(t), nested(t, lingering(t)), lingering(t))
	for range 3 {
		c := s.raw()
		require.NoError(t, c.SetDeadline(time.Now().Add(time.Minute)))
		_, err := c.Write(packet(0, ""))
		require.NoError(t, err)
		st, _ := status(t, c)
		require.Equal(t, ntstatus.Success, st)
		c.Close()
		eventually(t, "there is room", func() bool { return s.service.Stats().Clients == 0 })
	}
}

// The file of one who is turned away is not closed by this process: a file system of the
// client's would be asked. A process that closes a file loses its locks on it.
func TestFilesOfWhoIsTurnedAwayAreNotClosedHere(t *testing.T) {
	file, err := os.Create(t.TempDir() + "/locked")
	require.NoError(t, err)
	defer file.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	require.NoError(t, unix.FcntlFlock(file.Fd(), unix.F_SETLK, &lock))
	sent := make(chan struct{})
	s := newSite(t, remote.Options{Allow: func(remote.Peer) bool { <-sent; return false }})
	raw := s.raw()
	_, _, err = raw.WriteMsgUnix(packet(1, ""), unix.UnixRights(int(file.Fd())), nil)
	close(sent)
	require.NoError(t, err)
	status(t, raw)
	ended(t, raw)
	look := unix.Flock_t{Type: unix.F_WRLCK}
	other, err := os.OpenFile(file.Name(), os.O_RDWR, 0)
	require.NoError(t, err)
	defer other.Close()
	require.NoError(t, unix.FcntlFlock(other.Fd(), unix.F_OFD_GETLK, &look))
	require.EqualValues(t, unix.F_WRLCK, look.Type, "the lock is there")
}

// The service ends although such a descriptor is being closed yet.
func TestCloseDoesNotWaitForWhatClientsLeft(t *testing.T) {
	told := make(chan string, 16)
	s := turnedAway(t, remote.Options{Timeout: time.Millisecond, Logf: func(format string, _ ...any) { told <- format }}, lingering(t))
	require.Contains(t, <-told, "was turned away")
	s.service.Close()
	require.Contains(t, <-told, "are being closed yet")
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
