//go:build unix && !solaris

package transport

import (
	"golang.org/x/sys/unix"
)

// PeerDone tells whether the peer has disconnected and nothing it sent is unread.
func PeerDone(c Stream) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	done := false
	// The result of a connection that is closed already is false too.
	_ = raw.Control(func(fd uintptr) {
		var b [1]byte
		n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK)
		done = n == 0 && err == nil
	})
	return done
}

// AwaitPeerGone waits until the peer has disconnected or reset the connection,
// and then reports true. It reports false when the peer sends something, after
// which the end cannot be seen any more, or when the read deadline ends it.
func AwaitPeerGone(c Stream) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	gone := false
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK)
		if err == unix.EAGAIN || err == unix.EINTR {
			return false
		}
		gone = n <= 0
		return true
	})
	return gone && err == nil
}

// SendBuffer is the size of the connection's send buffer, in bytes.
func SendBuffer(c Stream) int { return control(c, sndbuf) }

// Unread is how many bytes have come that nobody has read.
func Unread(c Stream) int { return control(c, inq) }

func sndbuf(fd int) (int, error) { return unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF) }

// control asks the system for a number; it is zero if the system has none.
func control(c Stream, ask func(fd int) (int, error)) (n int) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	err = raw.Control(func(fd uintptr) {
		if v, err := ask(int(fd)); err == nil {
			n = v
		}
	})
	if err != nil {
		return 0
	}
	return n
}
