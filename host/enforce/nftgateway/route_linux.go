package nftgateway

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What TPROXY takes has the address of somebody else, and a packet with it is
// routed away. With the mark it is looked up in a table of our own, which has the
// number of the mark and where every address is this system's.

var everything = map[int]*net.IPNet{
	unix.AF_INET:  {IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)},
	unix.AF_INET6: {IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)},
}

// addRoutes makes marked packets this system's, and returns what takes away again
// what was not there already.
func addRoutes(mark uint32) (undo []func() error, err error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, fmt.Errorf("nftgateway: lo: %w", err)
	}
	for family, all := range everything {
		route := &netlink.Route{LinkIndex: lo.Attrs().Index, Dst: all, Table: int(mark), Type: unix.RTN_LOCAL, Scope: unix.RT_SCOPE_HOST, Family: family}
		if err := netlink.RouteAdd(route); err == nil {
			undo = append(undo, func() error { return netlink.RouteDel(route) })
		} else if !errors.Is(err, unix.EEXIST) && !absent(family, err) {
			return undo, fmt.Errorf("nftgateway: route of marked packets: %w", err)
		}
		if err := netlink.RuleAdd(rule(family, mark)); err == nil {
			undo = append(undo, func() error { return netlink.RuleDel(rule(family, mark)) })
		} else if !errors.Is(err, unix.EEXIST) && !absent(family, err) {
			return undo, fmt.Errorf("nftgateway: rule of marked packets: %w", err)
		}
	}
	return undo, nil
}

// absent reports whether a system has no IPv6.
func absent(family int, err error) bool { return family == unix.AF_INET6 && unknownTo(err) }

// unknownTo reports whether a kernel has nothing of the kind.
func unknownTo(err error) bool {
	return errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP)
}

func rule(family int, mark uint32) *netlink.Rule {
	r := netlink.NewRule()
	r.Family, r.Mark, r.Table, r.Priority = family, mark, int(mark), 100
	return r
}

// removeRoutes takes away what any addRoutes has made, as far as it is there.
func removeRoutes(mark uint32) error {
	var errs []error
	for family := range everything {
		err := netlink.RuleDel(rule(family, mark))
		for err == nil { // There may be several.
			err = netlink.RuleDel(rule(family, mark))
		}
		if !errors.Is(err, unix.ENOENT) && !unknownTo(err) {
			errs = append(errs, fmt.Errorf("nftgateway: rule of marked packets: %w", err))
		}
		routes, err := netlink.RouteListFiltered(family, &netlink.Route{Table: int(mark), Type: unix.RTN_LOCAL}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
		if err != nil && !unknownTo(err) {
			errs = append(errs, fmt.Errorf("nftgateway: route of marked packets: %w", err))
		}
		for i := range routes {
			if err := netlink.RouteDel(&routes[i]); err != nil && !errors.Is(err, unix.ESRCH) {
				errs = append(errs, fmt.Errorf("nftgateway: route of marked packets: %w", err))
			}
		}
	}
	return errors.Join(errs...)
}
