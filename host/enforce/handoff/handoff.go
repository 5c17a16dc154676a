// Package handoff hands a connection over to a proxy of somebody else: after the
// connection to the proxy is made, it says whom the connection is for, and then
// the connection is the program's own, at no cost for what follows.
//
// What is said and what is understood is decided in a state machine that touches
// no connection; Proxy.Introduce is the only place that does.
package handoff

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
)

// A Finder returns the proxy at an address, nil if there is none.
type Finder func(netip.AddrPort) *Proxy

// Find is the proxy at an address; a nil Finder has none.
func (f Finder) Find(a netip.AddrPort) *Proxy {
	if f == nil {
		return nil
	}
	return f(a)
}

// Only is the Finder of one proxy.
func Only(at netip.AddrPort, p *Proxy) Finder {
	return func(a netip.AddrPort) *Proxy {
		if a == at {
			return p
		}
		return nil
	}
}

// A Kind is what a proxy understands.
type Kind string

// The kinds.
const (
	ProxyProtocol Kind = "proxy-protocol" // PROXY protocol, version 2
	SOCKS5        Kind = "socks5"         // RFC 1928 CONNECT and UDP ASSOCIATE, RFC 1929
	HTTPConnect   Kind = "http-connect"   // RFC 9110, 9.3.6
)

// A Proxy is somebody else's.
type Proxy struct {
	Kind Kind // Required.
	// User and Password are shown to a SOCKS5 or HTTP proxy. Without a user there
	// are none. Optional.
	User, Password string
}

// A Request is what a proxy is told about a connection.
type Request struct {
	Source      netip.AddrPort // the program's end
	Destination netip.AddrPort // where it wants to go. Required.

	// For the PROXY protocol only, all Optional.
	Authority string // the name of the destination, if it is known
	UniqueID  []byte // up to 128 bytes
	Records   []byte // sealed redirect records
	Context   []byte // the callout's context
}

// A Cause is why a proxy did not take a connection over, where it says.
type Cause int

// The causes.
const (
	Unknown            Cause = iota
	Refused                  // the destination refused
	HostUnreachable          // or the proxy does not know its name
	NetworkUnreachable       //
	TimedOut                 // the destination, or the proxy
	NotAllowed               // by the proxy
)

// An Error says why a proxy did not take a connection over. The connection to it
// is of no use then.
type Error struct {
	Kind  Kind
	Cause Cause
	Why   string
}

func (e *Error) Error() string { return fmt.Sprintf("the %s proxy %s", e.Kind, e.Why) }

// Introduce tells the proxy at the other end of c whom the connection is for, and
// reads what it answers, not a byte more. Who calls it sets the deadline.
func (p *Proxy) Introduce(c io.ReadWriter, r *Request) error {
	x, err := p.begin(r)
	if err != nil {
		return err
	}
	return p.converse(c, x)
}

// converse holds a conversation.
func (p *Proxy) converse(c io.ReadWriter, x *exchange) error {
	var buf [512]byte
	for {
		if len(x.out) > 0 {
			if _, err := c.Write(x.out); err != nil {
				return p.broken("did not read what it was told", err)
			}
			x.out = nil
		}
		if x.want == 0 {
			return nil
		}
		n, err := c.Read(buf[:min(x.want, len(buf))])
		if n > 0 {
			err = x.feed(buf[:n])
		}
		if err != nil {
			return p.broken("did not answer", err)
		}
	}
}

// broken says what is wrong with a connection to a proxy.
func (p *Proxy) broken(what string, err error) error {
	if e := (*Error)(nil); errors.As(err, &e) {
		return err
	}
	e := &Error{Kind: p.Kind, Cause: Unknown, Why: fmt.Sprintf("%s: %v", what, err)}
	if t, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err); ok && t.Timeout() {
		e.Cause, e.Why = TimedOut, "did not answer in time"
	}
	if errors.Is(err, io.EOF) {
		e.Why = "closed the connection without an answer"
	}
	return e
}

// An exchange is where a conversation with a proxy stands.
type exchange struct {
	out  []byte // to be said now
	want int    // bytes that the proxy owes for sure; 0: it is over
	got  []byte
	next func() error // when want bytes are here: expects more, or it is over
}

// begin starts a conversation.
func (p *Proxy) begin(r *Request) (*exchange, error) {
	to := netip.AddrPortFrom(r.Destination.Addr().Unmap().WithZone(""), r.Destination.Port())
	if !to.IsValid() {
		return nil, &Error{Kind: p.Kind, Why: "was not asked: the destination is not known"}
	}
	if p.Kind == ProxyProtocol {
		return introduceProxied(r, to)
	}
	if err := p.ofLink(to.Addr()); err != nil {
		return nil, err
	}
	switch p.Kind {
	case SOCKS5:
		s, err := newSocks(p, socksConnect, to)
		return &s.exchange, err
	case HTTPConnect:
		return newTunnel(p, to)
	}
	return nil, &Error{Kind: p.Kind, Why: "is of an unknown kind"}
}

// ofLink refuses an address that means something on one link only: these proxies cannot be
// told which, and could have another one.
func (p *Proxy) ofLink(a netip.Addr) error {
	if a.Is4() || !a.IsLinkLocalUnicast() && !a.IsLinkLocalMulticast() && !a.IsInterfaceLocalMulticast() {
		return nil
	}
	return &Error{Kind: p.Kind, Cause: NotAllowed, Why: fmt.Sprintf("was not asked: %s is of one link, and it cannot be told which", a)}
}

// feed takes what the proxy said, at most want bytes.
func (x *exchange) feed(b []byte) error {
	x.got = append(x.got, b...)
	if x.want -= len(b); x.want > 0 {
		return nil
	}
	return x.next()
}

// expect waits for want more bytes: then next is called.
func (x *exchange) expect(want int, next func() error) {
	x.got, x.want, x.next = x.got[:0], want, next
}
