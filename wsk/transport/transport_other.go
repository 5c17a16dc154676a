//go:build !unix || solaris

package transport

import (
	"context"
	"io"
	"net"
	"net/netip"
)

// A Socket is an address to connect from or to listen at. Without the system's
// own calls it is taken when the socket connects or listens, so that port zero
// stays zero until then.
type Socket struct {
	local netip.AddrPort
	o     Options
}

// Bind remembers the address.
func Bind(want netip.AddrPort, o Options) (*Socket, error) {
	return &Socket{local: want, o: o}, nil
}

// Local is the address as asked for.
func (s *Socket) Local() netip.AddrPort { return s.local }

// Connect connects from the address. When ctx ends, so does Connect.
func (s *Socket) Connect(ctx context.Context, to netip.AddrPort) (*Conn, error) {
	var d net.Dialer
	if s.local.Port() != 0 || !s.local.Addr().IsUnspecified() {
		d.LocalAddr = net.TCPAddrFromAddrPort(s.local)
	}
	c, err := d.DialContext(ctx, network(s.local.Addr(), s.o), to.String())
	if err != nil {
		return nil, err
	}
	return &Conn{c.(*net.TCPConn)}, nil
}

// Listen listens at the address.
func (s *Socket) Listen() (*Listener, error) {
	l, err := net.ListenTCP(network(s.local.Addr(), s.o), net.TCPAddrFromAddrPort(s.local))
	if err != nil {
		return nil, err
	}
	return &Listener{l}, nil
}

// Close does nothing: nothing was taken.
func (s *Socket) Close() {}

func network(a netip.Addr, o Options) string {
	switch {
	case a.Is4():
		return "tcp4"
	case o.DualStack:
		return "tcp"
	}
	return "tcp6"
}

// PeerDone cannot tell without the system's own calls.
func PeerDone(Stream) bool { return false }

// AwaitPeerGone cannot tell either.
func AwaitPeerGone(Stream) bool { return false }

// SendBuffer is not known.
func SendBuffer(Stream) int { return 0 }

// Unread is not known.
func Unread(Stream) int { return 0 }

// Relay moves what src has to dst until src's peer disconnects. may is asked before
// the first bytes go on.
func Relay(dst, src Stream, may func() error) (int64, error) {
	if err := may(); err != nil {
		return 0, err
	}
	return io.Copy(dst, src)
}
