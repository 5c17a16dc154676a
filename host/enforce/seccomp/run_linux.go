//go:build amd64 || arm64

package seccomp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/enforce/internal/doomed"
	"github.com/calloutd/calloutd/host/fwps"
)

// maxReceivers bounds the connects that wait at one time.
const maxReceivers = 128

// Run starts cmd, decides the connects of its whole process tree, and returns
// when the last of them has ended. The state is that of cmd.
func Run(ctx context.Context, o Options, cmd *exec.Cmd) (*os.ProcessState, error) {
	if o.Logf == nil {
		o.Logf = func(string, ...any) {}
	}
	prog, err := filter()
	if err != nil {
		return nil, err
	}
	type started struct {
		fd  int
		err error
	}
	ready := make(chan started, 1)
	doomed.Go(func() {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			ready <- started{-1, err}
			return
		}
		if err := denyConnect(); err != nil {
			o.Logf("without Landlock a hostile program can race AF_UNIX connects: %v", err)
		}
		fd, err := install(prog)
		if err == nil {
			err = cmd.Start()
		}
		ready <- started{fd, err}
	})
	st := <-ready
	if st.err != nil {
		if st.fd >= 0 {
			unix.Close(st.fd)
		}
		return nil, st.err
	}
	defer unix.Close(st.fd)
	s := &supervisor{o: o, ctx: ctx, fd: st.fd}
	defer s.signals(cmd.Process)()
	s.wg.Add(1)
	go s.receive()
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = nil
	}
	s.wg.Wait()
	return cmd.ProcessState, err
}

type supervisor struct {
	o   Options
	ctx context.Context
	fd  int
	wg  sync.WaitGroup

	mu        sync.Mutex
	receivers int
	waiting   int
}

// signals leaves the terminal's signals to the child, which shares it, and
// passes the others on.
func (s *supervisor) signals(p *os.Process) (stop func()) {
	c := make(chan os.Signal, 8)
	signal.Notify(c, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGHUP)
	go func() {
		for sig := range c {
			if sig == unix.SIGTERM || sig == unix.SIGHUP {
				_ = p.Signal(sig) // It may have ended already.
			}
		}
	}()
	return func() { signal.Stop(c); close(c) }
}

// receive answers notifications until the tree is gone. It starts another
// receiver whenever none would be left waiting while it connects.
func (s *supervisor) receive() {
	defer s.wg.Done()
	var n notif
	for {
		s.mu.Lock()
		s.waiting++
		s.mu.Unlock()
		err := recv(s.fd, &n)
		s.mu.Lock()
		s.waiting--
		if err == nil && s.waiting == 0 && s.receivers < maxReceivers {
			s.receivers++
			s.wg.Add(1)
			go s.receive()
		}
		s.mu.Unlock()
		switch {
		case err == nil:
			s.answer(&n)
		case errors.Is(err, unix.EINTR):
		default:
			if !errors.Is(err, errGone) {
				s.o.Logf("seccomp listener: %v", err)
			}
			return
		}
	}
}

func (s *supervisor) answer(n *notif) {
	r := response{ID: n.ID}
	if s.handle(n, &r) {
		// ENOENT: the program was killed meanwhile.
		if e := send(s.fd, &r); e != 0 && e != unix.ENOENT {
			s.o.Logf("seccomp reply: %v", e)
		}
	}
}

// handle fills the reply; false means nobody waits for one.
func (s *supervisor) handle(n *notif, r *response) bool {
	fail := func(e unix.Errno) bool { r.Error = -int32(e); return true }
	length := uint32(n.Data.Args[2])
	if length > 128 {
		return fail(unix.EINVAL)
	}
	raw := make([]byte, length)
	memErr := readMemory(int(n.TID), n.Data.Args[1], raw)
	tgid, uid := owner(n.TID)
	sock, fdErr := fetch(n.TID, tgid, int(int32(n.Data.Args[0])))
	if !idValid(s.fd, n.ID) { // After both reads, so that it vouches for them.
		if fdErr == nil {
			unix.Close(sock)
		}
		return false
	}
	if fdErr != nil {
		if errors.Is(fdErr, unix.EBADF) {
			return fail(unix.EBADF)
		}
		s.o.Logf("process %d: its socket cannot be reached, so its connect is refused: %v", tgid, fdErr)
		return fail(unix.EACCES)
	}
	defer unix.Close(sock)
	domain, err := unix.GetsockoptInt(sock, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return fail(unix.ENOTSOCK)
	}
	if domain != unix.AF_INET && domain != unix.AF_INET6 {
		r.Flags = unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE // Landlock backs the race with dup2.
		return true
	}
	if memErr != 0 {
		return fail(memErr)
	}
	typ, _ := unix.GetsockoptInt(sock, unix.SOL_SOCKET, unix.SO_TYPE)
	to, ok := parse(raw)
	if !ok || typ != unix.SOCK_STREAM || !fits(sock, domain, to, raw) || begun(sock) {
		return fail(connect(sock, raw)) // Ours to perform, the kernel's to judge.
	}
	e := &endpoint{sock: sock, raw: raw, domain: domain, in: fwps.Incoming{Protocol: fwps.ProtocolTCP, Remote: to, ProcessID: tgid, UserID: uid, UserKnown: true}}
	e.in.AppID, _ = os.Readlink(fmt.Sprintf("/proc/%d/exe", tgid))
	e.in.Local = localAddr(sock, to)
	cookie, err := unix.GetsockoptUint64(sock, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err == nil {
		e.in.EndpointID = cookie
	}
	flow, err := s.o.ALE.Connect(s.ctx, e)
	if flow != nil {
		flow.Detach()
	}
	var errno unix.Errno
	switch {
	case err == nil:
		return true
	case errors.As(err, &errno):
		return fail(errno)
	}
	if s.o.OnBlocked != nil {
		s.o.OnBlocked(Denial{PID: tgid, AppID: e.in.AppID, Remote: to, Err: err})
	}
	return fail(unix.EACCES)
}

// owner reads the process and effective user of a thread; zero values belong
// to a thread that has just died, whose notification is not valid any more.
func owner(tid uint32) (tgid, uid uint32) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return tid, 0
	}
	for line := range strings.Lines(string(b)) {
		var ruid uint32
		if strings.HasPrefix(line, "Tgid:") {
			fmt.Sscanf(line, "Tgid: %d", &tgid)
		} else if strings.HasPrefix(line, "Uid:") {
			fmt.Sscanf(line, "Uid: %d %d", &ruid, &uid)
		}
	}
	return tgid, uid
}

// fetch duplicates a descriptor of the thread, which may have a table of its own.
func fetch(tid, tgid uint32, fd int) (int, error) {
	p, err := unix.PidfdOpen(int(tid), unix.PIDFD_THREAD)
	if errors.Is(err, unix.EINVAL) { // before 6.9
		p, err = unix.PidfdOpen(int(tgid), 0)
	}
	if err != nil {
		return -1, err
	}
	defer unix.Close(p)
	return unix.PidfdGetfd(p, fd, 0)
}

func parse(b []byte) (netip.AddrPort, bool) {
	if len(b) < 2 {
		return netip.AddrPort{}, false
	}
	switch binary.NativeEndian.Uint16(b) {
	case unix.AF_INET:
		if len(b) >= 16 {
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[2:])), true
		}
	case unix.AF_INET6:
		if len(b) >= 28 {
			return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[8:24])), binary.BigEndian.Uint16(b[2:])), true
		}
	}
	return netip.AddrPort{}, false
}

// fits reports whether the kernel would accept the address on the socket: a
// redirect must not turn its error into success.
func fits(sock, domain int, to netip.AddrPort, _ []byte) bool {
	if to.Addr().Is4() != (domain == unix.AF_INET) {
		return false
	}
	if to.Addr().Is4In6() {
		only, err := unix.GetsockoptInt(sock, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
		return err == nil && only == 0
	}
	return true
}

// begun reports whether the socket left the closed state: then connect() only
// asks how it stands (EISCONN, EALREADY, the result).
func begun(sock int) bool {
	info, err := unix.GetsockoptTCPInfo(sock, unix.IPPROTO_TCP, unix.TCP_INFO)
	const closed = 7 // TCP_CLOSE
	return err == nil && info.State != closed
}

type endpoint struct {
	sock, domain int
	raw          []byte
	in           fwps.Incoming
}

func (e *endpoint) Incoming() fwps.Incoming { return e.in }

func (e *endpoint) Connect(_ context.Context, to netip.AddrPort) (netip.AddrPort, error) {
	raw := e.raw
	if to != e.in.Remote {
		raw = format(e.domain, to)
	}
	errno := connect(e.sock, raw)
	local := localAddr(e.sock, to)
	switch errno {
	case 0:
		return local, nil
	case unix.EINPROGRESS:
		return local, fmt.Errorf("%w: %w", ale.ErrInProgress, errno)
	}
	return local, errno
}

func format(domain int, a netip.AddrPort) []byte {
	if domain == unix.AF_INET {
		b := make([]byte, 16)
		binary.NativeEndian.PutUint16(b, unix.AF_INET)
		binary.BigEndian.PutUint16(b[2:], a.Port())
		v4 := a.Addr().As4()
		copy(b[4:], v4[:])
		return b
	}
	b := make([]byte, 28)
	binary.NativeEndian.PutUint16(b, unix.AF_INET6)
	binary.BigEndian.PutUint16(b[2:], a.Port())
	v6 := a.Addr().As16()
	copy(b[8:], v6[:])
	return b
}

func localAddr(sock int, like netip.AddrPort) netip.AddrPort {
	sa, err := unix.Getsockname(sock)
	if err == nil {
		switch sa := sa.(type) {
		case *unix.SockaddrInet4:
			return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
		case *unix.SockaddrInet6:
			return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
		}
	}
	if like.Addr().Is4() {
		return netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
}
