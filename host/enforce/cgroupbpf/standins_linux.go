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

const standInRule = 1 // The next after what is local.

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

// prefixOfWords is what words made. False is none yet.
func prefixOfWords(w [2]uint32) (netip.Prefix, bool) {
	var b [16]byte
	binary.NativeEndian.PutUint32(b[:4], w[0])
	binary.NativeEndian.PutUint32(b[4:8], w[1])
	return netip.PrefixFrom(netip.AddrFrom16(b), 64), b[0] == 0xfd
}

// addStandIns makes a prefix local in this thread's network namespace, and returns the
// index of loopback.
func addStandIns(p netip.Prefix) (lo int, err error) {
	route, rule, err := standIns(p)
	if err != nil {
		return 0, err
	}
	if err := netlink.RuleAdd(rule); err != nil && !errors.Is(err, unix.EEXIST) {
		return 0, fmt.Errorf("rule for %s: %w", p, err)
	}
	if err := netlink.RouteReplace(route); err != nil {
		return 0, errors.Join(fmt.Errorf("route to %s: %w", p, err), netlink.RuleDel(rule))
	}
	return route.LinkIndex, nil
}

// removeStandIns undoes addStandIns, as far as there is anything to undo.
func removeStandIns(p netip.Prefix) error {
	route, rule, err := standIns(p)
	if err != nil {
		return err
	}
	var errs []error
	if err := netlink.RouteDel(route); err != nil && !errors.Is(err, unix.ESRCH) {
		errs = append(errs, fmt.Errorf("route to %s: %w", p, err))
	}
	if err := netlink.RuleDel(rule); err != nil && !errors.Is(err, unix.ENOENT) {
		errs = append(errs, fmt.Errorf("rule for %s: %w", p, err))
	}
	return errors.Join(errs...)
}

func standIns(p netip.Prefix) (*netlink.Route, *netlink.Rule, error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, nil, fmt.Errorf("lo: %w", err)
	}
	dst := &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 128)}
	rule := netlink.NewRule()
	rule.Family, rule.Dst, rule.Priority, rule.Type = unix.AF_INET6, dst, standInRule, unix.RTN_UNREACHABLE
	return &netlink.Route{LinkIndex: lo.Attrs().Index, Dst: dst, Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Family: unix.AF_INET6}, rule, nil
}
