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
	p  *Proxy
	to netip.AddrPort
}

func newSocks(p *Proxy, to netip.AddrPort) (*exchange, error) {
	if len(p.User) > 255 || len(p.Password) > 255 {
		return nil, &Error{Kind: SOCKS5, Cause: NotAllowed, Why: "takes names and passwords of up to 255 bytes"}
	}
	s := &socks{p: p, to: to}
	s.out = []byte{socksVersion, 1, methodNone}
	if p.User != "" {
		s.out = []byte{socksVersion, 2, methodNone, methodPassword}
	}
	s.expect(2, s.method)
	return &s.exchange, nil
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
	s.out = []byte{socksVersion, socksConnect, 0, socksIPv4}
	if s.to.Addr().Is6() {
		s.out[3] = socksIPv6
	}
	s.out = binary.BigEndian.AppendUint16(append(s.out, s.to.Addr().AsSlice()...), s.to.Port())
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
	7: {Unknown, "does not know CONNECT"},
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
			s.expect(int(s.got[0])+2, s.connected)
			return nil
		})
	default:
		return s.fail(Unknown, "answered with an address of the unknown kind %d", kind)
	}
	return nil
}

// connected is the end: where the proxy's own end is, is of no use.
func (s *socks) connected() error {
	s.expect(0, nil)
	return nil
}
