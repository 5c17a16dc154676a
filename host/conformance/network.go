package conformance

import (
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"github.com/calloutd/calloutd/host/ale"
)

// A network is one host with the addresses 10.0.0.5 and 2001:db8::5, and an
// outside where everybody answers.
type network struct {
	listening map[netip.AddrPort][]arrival // connections that wait for accept
	datagrams []arrival                    // on their way
	port      uint16
}

type arrival struct{ from, to netip.AddrPort }

func newNetwork() *network {
	return &network{listening: map[netip.AddrPort][]arrival{}, port: 40000}
}

func (n *network) local(a netip.Addr) bool {
	return a.IsLoopback() || a.IsUnspecified() || slices.Contains(localAddresses, a)
}

// source is the address that a socket bound to local sends from (CR-09).
func (n *network) source(local, to netip.AddrPort) (netip.AddrPort, error) {
	to = plain(to)
	a := local.Addr().Unmap()
	switch {
	case !a.IsValid() || a.IsUnspecified():
		a = to.Addr()
		if !n.local(a) {
			a = localAddresses[0]
			if to.Addr().Is6() {
				a = localAddresses[1]
			}
		}
	case a.IsLoopback() != to.Addr().IsLoopback():
		return local, syscall.ENETUNREACH
	}
	port := local.Port()
	if port == 0 {
		n.port++
		port = n.port
	}
	return netip.AddrPortFrom(a, port), nil
}

// connect is what the real stack does: refuse, or let the connection wait for accept.
func (n *network) connect(local netip.AddrPort, t ale.Target) (netip.AddrPort, error) {
	if t.Local.IsValid() {
		local = t.Local
	}
	to := plain(t.Remote)
	from, err := n.source(local, to)
	if err != nil {
		return local, err
	}
	if !n.local(to.Addr()) {
		return from, nil
	}
	at, ok := n.listener(to)
	if !ok {
		return local, syscall.ECONNREFUSED
	}
	n.listening[at] = append(n.listening[at], arrival{from, to})
	return from, nil
}

// listener is who takes connections to an address.
func (n *network) listener(to netip.AddrPort) (netip.AddrPort, bool) {
	for _, at := range []netip.AddrPort{to, netip.AddrPortFrom(netip.IPv4Unspecified(), to.Port()), netip.AddrPortFrom(netip.IPv6Unspecified(), to.Port())} {
		if _, ok := n.listening[at]; ok {
			return at, true
		}
	}
	return to, false
}

func (n *network) accept(at netip.AddrPort) (arrival, error) {
	queue := n.listening[at]
	if len(queue) == 0 {
		return arrival{}, fmt.Errorf("nobody waits at %s", at)
	}
	n.listening[at] = queue[1:]
	return queue[0], nil
}

// bind chooses a port where none was asked for.
func (n *network) bind(want netip.AddrPort) netip.AddrPort {
	if want.Port() == 0 {
		n.port++
		return netip.AddrPortFrom(want.Addr(), n.port)
	}
	return want
}

func (n *network) send(from, to netip.AddrPort) {
	n.datagrams = append(n.datagrams, arrival{from, plain(to)})
}

// receive takes the next datagram to a socket.
func (n *network) receive(local netip.AddrPort) (arrival, error) {
	for i, d := range n.datagrams {
		if d.to.Port() == local.Port() && (local.Addr().IsUnspecified() || d.to.Addr() == local.Addr().Unmap()) {
			n.datagrams = slices.Delete(n.datagrams, i, i+1)
			return d, nil
		}
	}
	return arrival{}, fmt.Errorf("no datagram waits at %s", local)
}

func plain(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
