package nftgateway

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

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
	for family := range everything {
		route := route(family, mark, lo)
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

func route(family int, mark uint32, lo netlink.Link) *netlink.Route {
	return &netlink.Route{LinkIndex: lo.Attrs().Index, Dst: everything[family], Table: int(mark), Type: unix.RTN_LOCAL, Scope: unix.RT_SCOPE_HOST, Family: family}
}

func rule(family int, mark uint32) *netlink.Rule {
	r := netlink.NewRule()
	r.Family, r.Mark, r.Table, r.Priority = family, mark, int(mark), priority
	return r
}

// priority is that of the rule for marked packets.
const priority = 100

// followRoutes puts the rule and the route of marked packets back that somebody took away,
// and tells of rules of others that come before. g.mu is held.
func (g *Gateway) followRoutes(names []string) error {
	if !g.opts.Transparent {
		return nil
	}
	added, err := addRoutes(g.opts.mark())
	if err != nil {
		return err
	}
	if len(added) > 0 && g.site != nil {
		g.opts.Logf("nftgateway: somebody took the rule or the route of marked packets away: they are there again, and what was sent meanwhile is lost")
	}
	before, err := g.opts.rulesBefore(names)
	if err != nil {
		return err
	}
	if before != "" && before != g.before {
		g.opts.Logf("nftgateway: rules for routes come before that of calloutd, and what they take is lost (%s): give them a priority of more than %d, or do without --transparent", before, priority)
	}
	g.before = before
	return nil
}

// rulesBefore are the rules of others that could take marked packets first.
func (o *Options) rulesBefore(names []string) (string, error) {
	var all []string
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		rules, err := netlink.RuleList(family)
		if err != nil && !absent(family, err) {
			return "", fmt.Errorf("nftgateway: rules for routes: %w", err)
		}
		for i := range rules { // In the order in which the kernel asks them.
			if rules[i].Mark == o.mark() && rules[i].Table == int(o.mark()) {
				break
			}
			if takes(&rules[i], o.mark(), names) {
				all = append(all, fmt.Sprintf("ip -%c rule show priority %d", map[int]rune{unix.AF_INET: '4', unix.AF_INET6: '6'}[family], rules[i].Priority))
			}
		}
	}
	return strings.Join(slices.Compact(all), ", "), nil
}

// takes reports whether a rule could decide where marked packets go that come in on the
// interfaces: from whom and where to is not looked at.
func takes(r *netlink.Rule, mark uint32, names []string) bool {
	const gotoRule, nop = 2, 3 // FR_ACT_GOTO, FR_ACT_NOP
	switch {
	case r.Table == unix.RT_TABLE_LOCAL, r.Type == nop, r.Type == gotoRule && r.Goto <= priority:
		return false
	}
	mask := ^uint32(0)
	if r.Mask != nil {
		mask = *r.Mask
	} else if r.Mark == 0 {
		mask = 0
	}
	matches := mark&mask == r.Mark && (r.IifName == "" || slices.Contains(names, r.IifName)) && r.OifName == "" &&
		(r.IPProto == 0 || r.IPProto == unix.IPPROTO_TCP || r.IPProto == unix.IPPROTO_UDP)
	if r.Invert {
		return !matches || r.Src != nil || r.Dst != nil || r.Sport != nil || r.Dport != nil || r.Tos != 0
	}
	return matches
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
