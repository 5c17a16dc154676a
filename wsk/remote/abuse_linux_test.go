package remote_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/wsk/ntstatus"
	"github.com/calloutd/calloutd/wsk/remote"
)

// raw is a client that may send anything.
func (s *site) raw() *net.UnixConn {
	c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: s.path, Net: "unixpacket"})
	require.NoError(s.t, err)
	s.t.Cleanup(func() { c.Close() })
	return c
}

// as is raw of another user, which root can be.
func (s *site) as(user int) (c *net.UnixConn) {
	if os.Geteuid() != 0 {
		require.Empty(s.t, os.Getenv("CI"), "CI runs as root")
		s.t.Skip("needs root")
	}
	for path := s.path; path != filepath.Clean(os.TempDir()); path = filepath.Dir(path) {
		require.NoError(s.t, os.Chmod(path, 0o777))
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		runtime.LockOSThread() // It ends with the goroutine, as that user's.
		id := uintptr(user)
		_, _, err := unix.RawSyscall(unix.SYS_SETRESGID, id, id, id)
		assert.Zero(s.t, err)
		if _, _, err = unix.RawSyscall(unix.SYS_SETRESUID, id, id, id); assert.Zero(s.t, err) {
			var err error
			c, err = net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: s.path, Net: "unixpacket"})
			assert.NoError(s.t, err)
		}
	})
	wg.Wait()
	require.NotNil(s.t, c)
	s.t.Cleanup(func() { c.Close() })
	return c
}

// packet is a request without faults.
func packet(op uint16, payload string) []byte {
	le := binary.LittleEndian
	b := le.AppendUint16(le.AppendUint16(le.AppendUint32(nil, 0x31575243), 1), op)
	b = le.AppendUint32(le.AppendUint32(b, 5), uint32(len(payload)))
	return append(append(b, make([]byte, 8)...), payload...)
}

// status reads an answer: its status, rule and reason.
func status(t testing.TB, c *net.UnixConn) (ntstatus.Status, string) {
	b := make([]byte, 8192)
	n, err := c.Read(b)
	require.NoError(t, err)
	require.GreaterOrEqual(t, n, 24)
	return ntstatus.Status(binary.LittleEndian.Uint32(b[16:])), string(b[24:n])
}

func TestMalformedRequestsAreAnsweredAndEndTheConnection(t *testing.T) {
	told := make(chan string, 1)
	s := newSite(t, remote.Options{Logf: func(format string, args ...any) { told <- fmt.Sprintf(format, args...) }})
	answer := packet(0x8001, "")
	long := append(packet(1, ""), make([]byte, 60000)...)
	for name, c := range map[string]struct {
		packet []byte
		why    string
	}{
		"no message":   {[]byte("GET / HTTP/1.1\r\nHost: example\r\n\r\n"), "byte 0: 0x20544547 is not 0x31575243"},
		"one byte":     {[]byte{1}, "byte 1: a message has at least 24 bytes"},
		"an answer":    {answer, "byte 6: this is an answer, not a request"},
		"far too long": {long, "byte 12: the payload is said to have 0 bytes and has 4097"},
	} {
		raw := s.raw()
		_, err := raw.Write(c.packet)
		require.NoError(t, err, name)
		st, why := status(t, raw)
		require.Equal(t, ntstatus.InvalidParameter, st, name)
		require.Contains(t, why, c.why, name)
		require.Contains(t, <-told, fmt.Sprintf("remote: process %d (%s) sent no request: %s", os.Getpid(), program(t), c.why))
		ended(t, raw)
	}
}

// ended waits until the service has closed the connection.
func ended(t testing.TB, c *net.UnixConn) {
	t.Helper()
	n, err := c.Read(make([]byte, 1))
	require.Zero(t, n)
	if err != nil {
		require.ErrorIs(t, err, io.EOF)
	}
}

func TestRequestsThatAskForNothingThereIs(t *testing.T) {
	s := newSite(t, remote.Options{})
	raw := s.raw()
	null, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer null.Close()
	fd := int(null.Fd())
	for _, c := range []struct {
		name   string
		packet []byte
		fds    []int
		status ntstatus.Status
		why    string
	}{
		{"a ping", packet(0, "whatever"), nil, ntstatus.Success, ""},
		{"a ping with a descriptor", packet(0, ""), []int{fd}, ntstatus.Success, ""},
		{"an operation of another version", packet(5, ""), []int{fd}, ntstatus.InvalidDeviceRequest, "operation 5 is not known"},
		{"AMB-06 without the socket", packet(1, ""), nil, ntstatus.AccessDenied, "AMB-06the request comes without the socket that it is about"},
		{"AMB-06 a name for the socket", packet(1, "127.0.0.1:80"), nil, ntstatus.AccessDenied, "AMB-06the request comes without"},
		{"two sockets", packet(1, ""), []int{fd, fd}, ntstatus.InvalidParameter, "more than one descriptor"},
		{"three", packet(1, ""), []int{fd, fd, fd}, ntstatus.InvalidParameter, "more than one descriptor"},
		{"a query with a payload", packet(2, "x"), []int{fd}, ntstatus.InvalidParameter, "a query has no payload"},
	} {
		_, _, err := raw.WriteMsgUnix(c.packet, unix.UnixRights(c.fds...), nil)
		require.NoError(t, err, c.name)
		st, why := status(t, raw)
		require.Equal(t, c.status, st, c.name)
		require.Contains(t, why, c.why, c.name)
	}
}

// Random packets with random descriptors: each client is answered or turned out,
// and no descriptor stays.
func TestDescriptorFloods(t *testing.T) {
	s := newSite(t, remote.Options{})
	null, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer null.Close()
	random := rand.New(rand.NewPCG(1, 2))
	base := descriptors(t)
	for range 50 {
		raw := s.raw()
		for range 20 {
			b := packet(uint16(random.IntN(6)), "")
			if random.IntN(4) == 0 {
				b[random.IntN(len(b))] ^= 1 << random.IntN(8)
			}
			fds := make([]int, random.IntN(253))
			for i := range fds {
				fds[i] = int(null.Fd())
			}
			_, _, err := raw.WriteMsgUnix(b, unix.UnixRights(fds...), nil)
			if err != nil { // It was turned out for the packet before.
				require.ErrorIs(t, err, syscall.EPIPE)
				break
			}
		}
		raw.Close()
	}
	eventually(t, "no descriptor is left", func() bool { return descriptors(t) <= base })
	eventually(t, "others are served", func() bool { return ping(s, t.Context()) == nil })
}

// An empty packet cannot be told from the end of a connection. What comes with it is closed.
func TestAnEmptyPacketLeavesNoDescriptor(t *testing.T) {
	s := newSite(t, remote.Options{})
	base := descriptors(t)
	raw := s.raw()
	rights := unix.UnixRights(0, 0)
	sys, err := raw.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, sys.Control(func(fd uintptr) { // Packages put a byte in where there is none.
		m := unix.Msghdr{Control: &rights[0]}
		m.SetControllen(len(rights))
		_, _, errno := unix.Syscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&m)), 0)
		require.Zero(t, errno)
	}))
	ended(t, raw)
	raw.Close()
	eventually(t, "the client is gone", func() bool { return s.service.Stats().Clients == 0 })
	require.Equal(t, base, descriptors(t))
}

// ping asks as a new client.
func ping(s *site, ctx context.Context) error {
	c, err := remote.Dial(ctx, s.path)
	if err == nil {
		c.Close()
	}
	return err
}

func TestClientsThatVanish(t *testing.T) {
	s := newSite(t, remote.Options{})
	_, accepted := s.redirected()
	f, err := accepted.File()
	require.NoError(t, err)
	defer f.Close()
	for range 200 {
		raw := s.raw()
		_, _, err := raw.WriteMsgUnix(packet(1, ""), unix.UnixRights(int(f.Fd())), nil)
		if err != nil { // The ones before are not gone yet: it was turned away.
			require.ErrorIs(t, err, syscall.EPIPE)
		}
		raw.Close()
	}
	eventually(t, "there is room", func() bool { return ping(s, t.Context()) == nil })
	eventually(t, "all that came before are gone", func() bool { return s.service.Stats().Clients == 0 })
	_, err = s.client().RedirectRecords(t.Context(), accepted)
	require.NoError(t, err)
}

func TestSlowClients(t *testing.T) {
	t.Run("one that asks nothing is let go", func(t *testing.T) {
		ended(t, newSite(t, remote.Options{Idle: time.Millisecond}).raw())
	})
	t.Run("a Client whose connection was let go connects again", func(t *testing.T) {
		s := newSite(t, remote.Options{})
		c := s.client()
		for range 3 {
			s.service.Close()
			s.serve(remote.Options{})
			_, err := c.RedirectContext(t.Context(), socket(t))
			require.ErrorIs(t, err, ntstatus.NotFound)
		}
	})
	t.Run("one that reads no answers is let go", func(t *testing.T) {
		s := newSite(t, remote.Options{Timeout: time.Millisecond})
		raw := s.raw()
		for {
			if _, err := raw.Write(packet(0, "")); err != nil {
				require.ErrorIs(t, err, syscall.EPIPE)
				break
			}
		}
		eventually(t, "others are served", func() bool { return ping(s, t.Context()) == nil }) // in time: a millisecond is not much
	})
}

func TestBounds(t *testing.T) {
	var st *remote.StatusError
	t.Run("a user has half of the connections", func(t *testing.T) {
		s := newSite(t, remote.Options{MaxClients: 4})
		first := s.raw()
		s.raw()
		eventually(t, "both are clients", func() bool { return s.service.Stats().Clients == 2 })
		require.ErrorAs(t, ping(s, t.Context()), &st)
		require.Equal(t, ntstatus.InsufficientResources, st.Status)
		require.Contains(t, st.Why, "too many clients are connected")
		first.Close()
		eventually(t, "there is room again", func() bool { return ping(s, t.Context()) == nil })
	})
	t.Run("all users together have the rest", func(t *testing.T) {
		s := newSite(t, remote.Options{MaxClients: 3, Allow: func(p remote.Peer) bool { return p.UID >= 1000 && p.GID == p.UID }})
		for i := range 3 {
			s.as(1000 + i)
			eventually(t, "it is a client", func() bool { return s.service.Stats().Clients == i+1 })
		}
		st, why := status(t, s.as(1003))
		require.Equal(t, ntstatus.InsufficientResources, st)
		require.Contains(t, why, "too many clients are connected")
	})
	t.Run("sockets that are known", func(t *testing.T) {
		s := newSite(t, remote.Options{MaxSockets: 1, Sweep: time.Millisecond})
		c := s.client()
		_, one := s.redirected()
		_, two := s.redirected()
		_, err := c.RedirectRecords(t.Context(), one)
		require.NoError(t, err)
		_, err = c.RedirectRecords(t.Context(), two)
		require.ErrorIs(t, err, ntstatus.InsufficientResources)
		require.ErrorContains(t, err, "too many sockets are known already")
		one.Close()
		eventually(t, "there is room again", func() bool { _, err := c.RedirectRecords(t.Context(), two); return err == nil })
	})
	t.Run("sockets with records", func(t *testing.T) {
		s := newSite(t, remote.Options{MaxSockets: 1})
		c := s.client()
		_, accepted := s.redirected()
		sealed, err := c.RedirectRecords(t.Context(), accepted)
		require.NoError(t, err)
		set := func(f *os.File) error {
			raw, err := f.SyscallConn()
			require.NoError(t, err)
			return c.SetRedirectRecords(t.Context(), raw, sealed)
		}
		one := socket(t)
		require.NoError(t, set(one))
		require.ErrorIs(t, set(socket(t)), ntstatus.InsufficientResources)
		require.NoError(t, set(one), "SC-41: it is known")
	})
	t.Run("sockets with records of one user", func(t *testing.T) {
		s := newSite(t, remote.Options{MaxSockets: 4, Allow: func(remote.Peer) bool { return true }})
		_, accepted := s.redirected()
		sealed, err := s.client().RedirectRecords(t.Context(), accepted)
		require.NoError(t, err)
		set := func(c *net.UnixConn) ntstatus.Status {
			f := socket(t) // It is closed, and the service cannot know.
			defer f.Close()
			_, _, err := c.WriteMsgUnix(packet(4, string(sealed)), unix.UnixRights(int(f.Fd())), nil)
			require.NoError(t, err)
			st, _ := status(t, c)
			return st
		}
		greedy, other := s.as(1000), s.as(1001)
		for range 2 {
			require.Equal(t, ntstatus.Success, set(greedy))
		}
		require.Equal(t, ntstatus.InsufficientResources, set(greedy))
		require.Equal(t, ntstatus.Success, set(other))
		require.NoError(t, s.service.Sweep(time.Now().Add(2*time.Minute)))
		require.Equal(t, ntstatus.Success, set(greedy), "there is room again")
	})
	t.Run("requests of a user wait", func(t *testing.T) {
		s := newSite(t, remote.Options{Rate: 1})
		refused := 0
		for range 5 { // More than one in the second that all of them may take.
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			if ping(s, ctx) != nil {
				refused++
			}
			cancel()
		}
		require.Positive(t, refused)
	})
}

// The service ends while clients wait for it.
func TestCloseEndsClients(t *testing.T) {
	s := newSite(t, remote.Options{})
	raw := s.raw()
	eventually(t, "it is a client", func() bool { return s.service.Stats().Clients == 1 })
	s.service.Close()
	ended(t, raw)
	_, err := remote.Dial(t.Context(), s.path)
	require.ErrorIs(t, err, syscall.ENOENT)
	require.Zero(t, s.service.Stats().Sockets)
}

// Serve needs packets.
func TestServeRefusesStreams(t *testing.T) {
	s := newSite(t, remote.Options{})
	l, err := remote.Listen("unix", t.TempDir()+"/stream", 0o600)
	require.NoError(t, err)
	require.EqualError(t, s.service.Serve(nil), "remote: no listener was given: invalid argument")
	require.ErrorContains(t, s.service.Serve(l), "the listener is unix, a service needs unixpacket (SOCK_SEQPACKET)")
	_, err = l.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
}

// Nor does it begin when it has ended.
func TestServeAfterClose(t *testing.T) {
	s := newSite(t, remote.Options{})
	s.service.Close()
	l, err := remote.Listen("unixpacket", t.TempDir()+"/late", 0o600)
	require.NoError(t, err)
	require.ErrorIs(t, s.service.Serve(l), net.ErrClosed)
	_, err = l.Accept()
	require.ErrorIs(t, err, net.ErrClosed, "the listener was its own")
}

// A client whose socket the service could not take, for want of a descriptor, is let go. It does
// not hear that it sent none.
func TestAServiceWithoutDescriptors(t *testing.T) {
	s := newSite(t, remote.Options{})
	raw := s.raw()
	eventually(t, "it is served", func() bool { return s.service.Stats().Clients == 1 })
	defer descriptorsLeft(t, 0)()
	_, _, err := raw.WriteMsgUnix(packet(1, ""), unix.UnixRights(0), nil)
	require.NoError(t, err)
	ended(t, raw)
}

// descriptorsLeft leaves this process so many until it is undone.
func descriptorsLeft(t *testing.T, n int) (undo func()) {
	free, err := unix.Dup(0)
	require.NoError(t, err)
	require.NoError(t, unix.Close(free))
	var limit unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(free + n), Max: limit.Max}))
	return func() { require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)) }
}

// A client for whose connection the service has no descriptor is served once there is one.
func TestAServiceThatCannotAccept(t *testing.T) {
	told := make(chan string, 64)
	s := newSite(t, remote.Options{Logf: func(format string, args ...any) { told <- fmt.Sprintf(format, args...) }})
	undo := descriptorsLeft(t, 1)
	raw := s.raw()
	require.Contains(t, <-told, "remote: accept: ")
	undo()
	_, err := raw.Write(packet(0, ""))
	require.NoError(t, err)
	st, _ := status(t, raw)
	require.Equal(t, ntstatus.Success, st)
}

// A user is known while it has a client, or would have to wait.
func TestUsersAreForgotten(t *testing.T) {
	s := newSite(t, remote.Options{Sweep: time.Millisecond})
	c := s.client()
	for range 2 { // One sweep at least begins after the first.
		require.NoError(t, ping(s, t.Context()))
		eventually(t, "one client is left", func() bool { return s.service.Stats().Clients == 1 })
		require.Equal(t, 1, s.service.Users())
		time.Sleep(2 * time.Millisecond)
	}
	c.Close()
	eventually(t, "the user is forgotten", func() bool { return s.service.Users() == 0 })
	require.NoError(t, ping(s, t.Context()))
}

// One who goes and comes again waits no less: the first client leaves when it may ask a
// second time, and the next may ask a second later.
func TestUsersWhoMustWaitAreNotForgotten(t *testing.T) {
	s := newSite(t, remote.Options{Rate: 1, Sweep: time.Millisecond})
	began := time.Now()
	require.NoError(t, ping(s, t.Context()))
	eventually(t, "it is gone", func() bool { return s.service.Stats().Clients == 0 })
	time.Sleep(10 * time.Millisecond) // There is a sweep.
	require.NoError(t, ping(s, t.Context()))
	require.Greater(t, time.Since(began), 1500*time.Millisecond)
}

// slow is a service that answers a set when it is let, and a client whose set it has.
func slow(t *testing.T, o remote.Options) (s *site, c *remote.Client, let func(), answer chan error) {
	s = newSite(t, remote.Options{})
	_, accepted := s.redirected()
	sealed, err := s.client().RedirectRecords(t.Context(), accepted)
	require.NoError(t, err)
	s.service.Close()
	asked, may := make(chan struct{}), make(chan struct{})
	o.MaySetRecords = func(remote.Peer) bool {
		close(asked)
		<-may
		return true
	}
	s.serve(o)
	c = s.client()
	raw, err := socket(t).SyscallConn()
	require.NoError(t, err)
	answer = make(chan error, 1)
	go func() { answer <- c.SetRedirectRecords(context.Background(), raw, sealed) }()
	<-asked
	return s, c, sync.OnceFunc(func() { close(may) }), answer
}

// A Client that is closed keeps no connection, not that of a request which ends later either.
func TestClientCloseIsForGood(t *testing.T) {
	s, c, let, answer := slow(t, remote.Options{})
	require.NoError(t, c.Close())
	let()
	require.NoError(t, <-answer)
	eventually(t, "the connection is closed", func() bool { return s.service.Stats().Clients == 0 })
	_, err := c.RedirectRecords(t.Context(), socket(t))
	require.ErrorIs(t, err, net.ErrClosed)
}

// What a request would leave behind, for which Close has not waited, is refused.
func TestNothingIsKeptAfterClose(t *testing.T) {
	s, _, let, answer := slow(t, remote.Options{Timeout: time.Millisecond})
	s.service.Close()
	let()
	require.Error(t, <-answer)
	eventually(t, "it is answered", func() bool { return s.service.Stats().Clients == 0 })
	require.Zero(t, s.service.Stats().Outbound)
}

// The service leaves no descriptor of its own.
func TestCloseClosesItsDescriptors(t *testing.T) {
	s := newSite(t, remote.Options{})
	base := descriptors(t)
	other, err := remote.New(remote.Options{ALE: s.ALE})
	require.NoError(t, err)
	require.Greater(t, descriptors(t), base)
	other.Close()
	require.Equal(t, base, descriptors(t))
}
