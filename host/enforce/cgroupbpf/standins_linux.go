//go:build amd64 || arm64

package cgroupbpf

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The addresses of IPv6 that stand in for others are a subnet of loopback that an
// attachment chooses at random, of those for local use (RFC 4193). A route delivers them
// here; and if that goes, as it does with loopback, a rule refuses them, so that no
// datagram leaves for them.

const (
	standInRule     = 1    // The next after what is local.
	standInProtocol = 0xca // Says whose rules these are.
)

func newPrefix() netip.Prefix {
	b := [16]byte{0xfd}
	_, _ = rand.Read(b[1:8]) // It never fails.
	return netip.PrefixFrom(netip.AddrFrom16(b), 64)
}

// words is a prefix as the kernel's part has it.
func words(p netip.Prefix) [2]uint32 {
	b := p.Addr().As16()
	return [2]uint32{binary.NativeEndian.Uint32(b[:4]), binary.NativeEndian.Uint32(b[4:8])}
}

// A claim is a prefix that somebody uses in a network namespace: as long as the process
// lives, which has a name there.
type claim struct {
	prefix netip.Prefix
	name   net.Listener
	lo     int // the index of loopback
}

// addStandIns makes a prefix local in this thread's network namespace, and takes away
// those of processes that were killed.
func addStandIns(p netip.Prefix) (_ *claim, err error) {
	sweep()
	c, err := newClaim(p)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.remove())
		}
	}()
	route, rule, err := standIns(p)
	if err != nil {
		return nil, err
	}
	c.lo = route.LinkIndex
	if err := netlink.RuleAdd(rule); err != nil {
		return nil, fmt.Errorf("rule for %s: %w", p, err)
	}
	if err := netlink.RouteReplace(route); err != nil {
		return nil, fmt.Errorf("route to %s: %w", p, err)
	}
	return c, nil
}

// newClaim fails if another process has the prefix.
func newClaim(p netip.Prefix) (*claim, error) {
	l, err := net.Listen("unix", "@calloutd "+p.String())
	return &claim{prefix: p, name: l}, err
}

// remove undoes addStandIns, as far as there is anything to undo, in the same namespace.
func (c *claim) remove() error {
	defer c.name.Close()
	route, rule, err := standIns(c.prefix)
	if err != nil {
		return err
	}
	var errs []error
	if err := netlink.RouteDel(route); err != nil && !errors.Is(err, unix.ESRCH) {
		errs = append(errs, fmt.Errorf("route to %s: %w", c.prefix, err))
	}
	if err := netlink.RuleDel(rule); err != nil && !errors.Is(err, unix.ENOENT) {
		errs = append(errs, fmt.Errorf("rule for %s: %w", c.prefix, err))
	}
	return errors.Join(errs...)
}

// sweep removes prefixes that nobody claims. What it cannot remove does no harm.
func sweep() {
	rules, _ := netlink.RuleList(unix.AF_INET6)
	for _, r := range rules {
		if r.Protocol != standInProtocol || r.Dst == nil {
			continue
		}
		addr, _ := netip.AddrFromSlice(r.Dst.IP)
		ones, _ := r.Dst.Mask.Size()
		if c, err := newClaim(netip.PrefixFrom(addr, ones)); err == nil {
			_ = c.remove()
		}
	}
}

func standIns(p netip.Prefix) (*netlink.Route, *netlink.Rule, error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, nil, fmt.Errorf("lo: %w", err)
	}
	dst := &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 128)}
	rule := netlink.NewRule()
	rule.Family, rule.Dst, rule.Priority, rule.Type, rule.Protocol = unix.AF_INET6, dst, standInRule, unix.RTN_UNREACHABLE, standInProtocol
	return &netlink.Route{LinkIndex: lo.Attrs().Index, Dst: dst, Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Family: unix.AF_INET6}, rule, nil
}
