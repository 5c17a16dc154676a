package remote

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// ownNetns is the cookie of this process's network namespace; zero, which no
// namespace has, if the kernel does not tell.
var ownNetns = sync.OnceValue(func() uint64 {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	cookie, _ := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	return cookie
})

// A diag asks the kernel whether sockets still exist (sock_diag(7)). The service
// cannot keep a descriptor to find out: the connection would stay open with it.
type diag struct{ fd int }

func openDiag() (*diag, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("remote: the kernel cannot be asked about sockets (sock_diag): %w", err)
	}
	return &diag{fd}, nil
}

func (d *diag) close() { unix.Close(d.fd) }

// lives asks about one socket by its addresses, its device and its cookie. A socket that
// no process has any more does not live, though its connection may go on ending.
func (d *diag) lives(s *tcpSocket) (bool, error) {
	if err := unix.Sendto(d.fd, diagRequest(s), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return false, err
	}
	var buf [4096]byte
	n, err := unix.Read(d.fd, buf[:])
	if err != nil {
		return false, err
	}
	messages, err := syscall.ParseNetlinkMessage(buf[:n])
	if err != nil || len(messages) == 0 {
		return false, fmt.Errorf("remote: sock_diag answers %d bytes: %w", n, err)
	}
	return diagAnswer(&messages[0])
}

const (
	diagByFamily = 20 // SOCK_DIAG_BY_FAMILY
	diagInode    = 68 // offset of inet_diag_msg.idiag_inode
)

// diagRequest is a struct inet_diag_req_v2 for one socket.
func diagRequest(s *tcpSocket) []byte {
	const size = unix.SizeofNlMsghdr + 56
	ne := binary.NativeEndian
	family := byte(unix.AF_INET6)
	if s.local.Addr().Is4() {
		family = unix.AF_INET
	}
	b := make([]byte, 0, size)
	b = ne.AppendUint32(b, size)
	b = ne.AppendUint16(b, diagByFamily)
	b = ne.AppendUint16(b, unix.NLM_F_REQUEST)
	b = append(b, make([]byte, 8)...) // sequence and sender, which nobody else shares
	b = append(b, family, unix.IPPROTO_TCP, 0, 0)
	b = ne.AppendUint32(b, ^uint32(0)) // in any state
	b = binary.BigEndian.AppendUint16(b, s.local.Port())
	b = binary.BigEndian.AppendUint16(b, s.remote.Port())
	for _, a := range []netip.Addr{s.local.Addr(), s.remote.Addr()} {
		var raw [16]byte
		copy(raw[:], a.AsSlice())
		b = append(b, raw[:]...)
	}
	b = ne.AppendUint32(b, uint32(s.device)) // Zero finds none that is bound to one.
	return ne.AppendUint64(b, s.cookie)
}

func diagAnswer(m *syscall.NetlinkMessage) (bool, error) {
	ne := binary.NativeEndian
	switch {
	case m.Header.Type == diagByFamily && len(m.Data) >= diagInode+4:
		return m.Data[1] != tcpTimeWait && ne.Uint32(m.Data[diagInode:]) != 0, nil
	case m.Header.Type == unix.NLMSG_ERROR && len(m.Data) >= 4:
		switch errno := syscall.Errno(-int32(ne.Uint32(m.Data))); errno {
		case syscall.ENOENT, syscall.ESTALE:
			return false, nil
		default:
			return false, fmt.Errorf("remote: sock_diag: %w", errno)
		}
	}
	return false, fmt.Errorf("remote: sock_diag answers a message of type %d with %d bytes", m.Header.Type, len(m.Data))
}
