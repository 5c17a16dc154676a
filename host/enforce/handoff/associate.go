package handoff

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/calloutd/calloutd/host/enforce/internal/reach"
)

// An Association carries datagrams by way of a SOCKS5 proxy (UDP ASSOCIATE). It
// lasts as long as its connection to the proxy.
type Association struct {
	p       *Proxy
	control net.Conn
	relay   *net.UDPConn
	ended   chan struct{} // the proxy has ended it, or Close
}

// Associate asks the SOCKS5 proxy at an address for an association.
func Associate(ctx context.Context, at netip.AddrPort, p *Proxy) (*Association, error) {
	var d net.Dialer
	d.SetMultipathTCP(false)
	c, err := d.DialContext(ctx, "tcp", at.String())
	if err != nil {
		return nil, p.broken("cannot be reached", err)
	}
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
	to, err := p.associate(c)
	if err != nil {
		c.Close()
		return nil, err
	}
	if to.Addr().IsUnspecified() { // Where the connection goes, too.
		to = netip.AddrPortFrom(at.Addr(), to.Port())
	}
	if reach.Of(to.Addr()) < reach.Of(at.Addr()) { // The policy lets datagrams go to a proxy, which must not send them on to what is behind a firewall with us.
		c.Close()
		return nil, &Error{Kind: SOCKS5, Cause: NotAllowed, Why: fmt.Sprintf("wants datagrams to go to %s, which is nearer to this host than it is itself", to)}
	}
	relay, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		c.Close()
		return nil, p.broken("has no way for datagrams", err)
	}
	a := &Association{p: p, control: c, relay: relay, ended: make(chan struct{})}
	go func() {
		defer close(a.ended)
		_, _ = io.Copy(io.Discard, c) // It says nothing more, until it ends.
		c.Close()
		relay.Close()
	}()
	return a, nil
}

// associate holds the conversation about an association, and returns where its
// datagrams go.
func (p *Proxy) associate(c io.ReadWriter) (netip.AddrPort, error) {
	if p.Kind != SOCKS5 {
		return netip.AddrPort{}, &Error{Kind: p.Kind, Why: "takes connections only"}
	}
	s, err := newSocks(p, socksAssociate, netip.AddrPortFrom(netip.IPv4Unspecified(), 0)) // It learns who sends from the first datagram.
	if err == nil {
		err = p.converse(c, &s.exchange)
	}
	if err == nil && s.bound.Port() == 0 {
		err = s.fail(Unknown, "did not say where datagrams go")
	}
	return s.bound, err
}

// Close ends the association.
func (a *Association) Close() {
	a.control.Close()
	<-a.ended
}

// Ended is closed when the association is over.
func (a *Association) Ended() <-chan struct{} { return a.ended }

// WriteTo sends a datagram to somebody behind the proxy. It may be called by
// several at once.
func (a *Association) WriteTo(b []byte, to netip.AddrPort) error {
	to = netip.AddrPortFrom(to.Addr().Unmap().WithZone(""), to.Port())
	if err := a.p.ofLink(to.Addr()); err != nil {
		return err
	}
	out, _ := outs.Get().(*[]byte)
	if out == nil {
		out = new([]byte)
	}
	defer outs.Put(out)
	*out = append(appendDatagram((*out)[:0], to), b...)
	_, err := a.relay.Write(*out)
	return err
}

// outs are for WriteTo: there may be many associations, and few that write.
var outs sync.Pool

// ReadFrom waits for a datagram and returns what it carries, in b, and who sent it
// there: not valid of what the proxy should not have sent.
func (a *Association) ReadFrom(b []byte) ([]byte, netip.AddrPort, error) {
	n, err := a.relay.Read(b)
	if err != nil {
		return nil, netip.AddrPort{}, fmt.Errorf("the %s proxy's association has ended: %w", SOCKS5, err)
	}
	from, payload, err := parseDatagram(b[:n])
	if err != nil {
		return nil, netip.AddrPort{}, nil
	}
	return payload, from, nil
}

// SyscallConn is the socket that ReadFrom reads from.
func (a *Association) SyscallConn() (syscall.RawConn, error) { return a.relay.SyscallConn() }

// appendDatagram adds the header of a datagram (RFC 1928, 7).
func appendDatagram(b []byte, to netip.AddrPort) []byte {
	return appendAddress(append(b, 0, 0, 0), to)
}

var errDatagram = errors.New("handoff: no whole datagram from an address")

// parseDatagram takes a datagram apart. One of several fragments, which nobody
// sends, and one from a name are no use.
func parseDatagram(b []byte) (from netip.AddrPort, payload []byte, err error) {
	const head = 4 // reserved, fragment, kind
	if len(b) < head || b[2] != 0 {
		return from, nil, errDatagram
	}
	size := map[byte]int{socksIPv4: 4, socksIPv6: 16}[b[3]]
	if size == 0 || len(b) < head+size+2 {
		return from, nil, errDatagram
	}
	a, _ := netip.AddrFromSlice(b[head : head+size])
	return netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(b[head+size:])), b[head+size+2:], nil
}
