package handoff

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// What RFC 1928 and RFC 1929 call it.
const (
	socksVersion    = 5
	socksConnect    = 1
	socksAssociate  = 3
	socksIPv4       = 1
	socksName       = 3
	socksIPv6       = 4
	methodNone      = 0
	methodPassword  = 2
	passwordVersion = 1
)

// A socks is a conversation with a SOCKS5 proxy.
type socks struct {
	exchange
	p       *Proxy
	command byte
	to      netip.AddrPort
	bound   netip.AddrPort // what the proxy answered with; not valid if that is a name
}

func newSocks(p *Proxy, command byte, to netip.AddrPort) (*socks, error) {
	s := &socks{p: p, command: command, to: to}
	if len(p.User) > 255 || len(p.Password) > 255 {
		return s, s.fail(NotAllowed, "takes names and passwords of up to 255 bytes")
	}
	s.out = []byte{socksVersion, 1, methodNone}
	if p.User != "" {
		s.out = []byte{socksVersion, 2, methodNone, methodPassword}
	}
	s.expect(2, s.method)
	return s, nil
}

func (s *socks) fail(cause Cause, format string, args ...any) error {
	return &Error{Kind: SOCKS5, Cause: cause, Why: fmt.Sprintf(format, args...)}
}

// method is the proxy's choice of how it wants to know who we are.
func (s *socks) method() error {
	switch version, method := s.got[0], s.got[1]; {
	case version != socksVersion:
		return s.fail(Unknown, "does not speak SOCKS5: it answered with byte %#02x", version)
	case method == methodNone:
		return s.request()
	case method == methodPassword && s.p.User != "":
		s.out = append(append([]byte{passwordVersion, byte(len(s.p.User))}, s.p.User...), byte(len(s.p.Password)))
		s.out = append(s.out, s.p.Password...)
		s.expect(2, s.authenticated)
		return nil
	case method == 0xff || method == methodPassword:
		if s.p.User == "" {
			return s.fail(NotAllowed, "wants to know who asks: give it credentials")
		}
		return s.fail(NotAllowed, "takes neither a password nor none")
	default:
		return s.fail(NotAllowed, "wants the authentication method %d, which was not offered", method)
	}
}

func (s *socks) authenticated() error {
	if s.got[1] != 0 {
		return s.fail(NotAllowed, "does not take the credentials (status %d)", s.got[1])
	}
	return s.request()
}

func (s *socks) request() error {
	s.out = appendAddress([]byte{socksVersion, s.command, 0}, s.to)
	s.expect(4, s.reply)
	return nil
}

// replies are the REP values of RFC 1928.
var replies = [...]struct {
	cause Cause
	why   string
}{
	1: {Unknown, "failed in general"},
	2: {NotAllowed, "does not allow it by its rules"},
	3: {NetworkUnreachable, "cannot reach the network"},
	4: {HostUnreachable, "cannot reach the host"},
	5: {Refused, "was refused by the destination"},
	6: {TimedOut, "found the destination too far away (TTL expired)"},
	7: {Unknown, "does not know the command"},
	8: {Unknown, "does not know the address type"},
}

// reply is the proxy's answer up to the kind of address that follows.
func (s *socks) reply() error {
	if s.got[0] != socksVersion {
		return s.fail(Unknown, "does not speak SOCKS5: it answered with byte %#02x", s.got[0])
	}
	if rep := int(s.got[1]); rep != 0 {
		if rep >= len(replies) {
			return s.fail(Unknown, "failed (reply %d)", rep)
		}
		return s.fail(replies[rep].cause, "%s", replies[rep].why)
	}
	switch kind := s.got[3]; kind {
	case socksIPv4:
		s.expect(4+2, s.connected)
	case socksIPv6:
		s.expect(16+2, s.connected)
	case socksName:
		s.expect(1, func() error {
			s.expect(int(s.got[0])+2, func() error { return nil }) // Nobody here can resolve it.
			return nil
		})
	default:
		return s.fail(Unknown, "answered with an address of the unknown kind %d", kind)
	}
	return nil
}

// connected is the end. Where the proxy's own end of a connection is, is of no
// use; of an association it is where datagrams go.
func (s *socks) connected() error {
	host, port := s.got[:len(s.got)-2], binary.BigEndian.Uint16(s.got[len(s.got)-2:])
	if a, ok := netip.AddrFromSlice(host); ok {
		s.bound = netip.AddrPortFrom(a.Unmap(), port)
	}
	return nil
}

// appendAddress adds the kind of an address, the address and the port.
func appendAddress(b []byte, a netip.AddrPort) []byte {
	kind := byte(socksIPv4)
	if a.Addr().Is6() {
		kind = socksIPv6
	}
	return binary.BigEndian.AppendUint16(append(append(b, kind), a.Addr().AsSlice()...), a.Port())
}
