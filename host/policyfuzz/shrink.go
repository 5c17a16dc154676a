package policyfuzz

import (
	"context"
	"maps"
	"net/netip"
	"slices"

	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/policytest"
)

// shrink makes a connection as ordinary as it can be and still have the fault.
func (s *searcher) shrink(ctx context.Context, in fwps.Incoming, f *policytest.Fault) (fwps.Incoming, *policytest.Fault, error) {
	for again := true; again; {
		again = false
		for _, c := range simpler(in) {
			g, err := s.try(ctx, c)
			if err != nil {
				return in, f, err
			}
			if g != nil && key(g) == key(f) {
				in, f, again = c, g, true
				break
			}
		}
	}
	return in, f, nil
}

var (
	ordinary4 = netip.MustParseAddr("192.0.2.1")
	ordinary6 = netip.MustParseAddr("2001:db8::1")
	// What a dual-stack socket calls the first.
	ordinaryMapped = netip.AddrFrom16(ordinary4.As16())
	// What a program listens at that somebody connects to.
	ordinaryLocal = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), ordinaryPort)
)

const (
	ordinaryPort    = 443
	ordinaryProgram = "/usr/bin/curl"
	ordinaryUser    = 1000
)

// simpler lists connections that differ less from an ordinary one, the simplest
// first. Each is smaller by one measure, so that shrinking ends.
func simpler(in fwps.Incoming) (out []fwps.Incoming) {
	add := func(change func(*fwps.Incoming)) {
		next := in
		change(&next)
		same := next.Remote == in.Remote && next.Local == in.Local && next.AppID == in.AppID && next.UserID == in.UserID && next.UserKnown == in.UserKnown &&
			next.Protocol == in.Protocol && next.Inbound == in.Inbound && len(next.Other) == len(in.Other)
		if !same {
			out = append(out, next)
		}
	}
	a, p := in.Remote.Addr(), in.Remote.Port()
	if in.Inbound {
		add(func(n *fwps.Incoming) { n.Inbound, n.Remote, n.Local = false, in.Local, netip.AddrPort{} })
		add(func(n *fwps.Incoming) { n.Local, n.Remote = ordinaryLocal, netip.AddrPortFrom(ordinary4, ordinaryPort) })
	}
	add(func(n *fwps.Incoming) { n.AppID = ordinaryProgram })
	add(func(n *fwps.Incoming) { n.UserID, n.UserKnown = ordinaryUser, true })
	add(func(n *fwps.Incoming) { n.UserKnown = true })
	for _, field := range slices.Sorted(maps.Keys(in.Other)) { // The same order each time.
		add(func(n *fwps.Incoming) {
			n.Other = maps.Clone(in.Other)
			delete(n.Other, field)
		})
	}
	if in.Protocol != fwps.ProtocolTCP {
		add(func(n *fwps.Incoming) { n.Protocol = fwps.ProtocolTCP })
	}
	if a != ordinary4 && !in.Inbound {
		add(func(n *fwps.Incoming) { n.Remote = netip.AddrPortFrom(ordinary4, p) })
	}
	if a.Is6() && a != ordinary6 {
		add(func(n *fwps.Incoming) { n.Remote = netip.AddrPortFrom(ordinary6, p) })
	}
	if a.Is4In6() && a != ordinaryMapped {
		add(func(n *fwps.Incoming) { n.Remote = netip.AddrPortFrom(ordinaryMapped, p) })
	}
	if p != ordinaryPort {
		add(func(n *fwps.Incoming) { n.Remote = netip.AddrPortFrom(a, ordinaryPort) })
		for _, low := range lower(int(p)) {
			add(func(n *fwps.Incoming) { n.Remote = netip.AddrPortFrom(a, uint16(low)) })
		}
	}
	if a != ordinary4 && a != ordinary6 && a != ordinaryMapped {
		for _, b := range fewerBits(a) {
			add(func(n *fwps.Incoming) { n.Remote = netip.AddrPortFrom(b, p) })
		}
	}
	return out
}

// lower lists smaller numbers, the smallest first.
func lower(n int) (out []int) {
	for step := n - 1; step > 0; step /= 2 {
		out = append(out, n-step)
	}
	return out
}

// fewerBits lists the address with bits taken away, the least important ones first.
func fewerBits(a netip.Addr) (out []netip.Addr) {
	b := a.AsSlice()
	for i := range slices.Backward(b) {
		for bit := range 8 {
			if b[i]>>bit&1 == 0 {
				continue
			}
			c := slices.Clone(b)
			c[i] &^= 1 << bit
			if x, ok := netip.AddrFromSlice(c); ok && !x.IsUnspecified() {
				out = append(out, x)
			}
		}
	}
	return out
}
