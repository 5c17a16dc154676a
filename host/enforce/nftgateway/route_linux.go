package nftgateway

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
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
		rules, err := rulesOf(family)
		if err != nil {
			return "", err
		}
		f := forwarded{mark: o.mark(), names: names}
		if f.here, err = addressed(family); err != nil {
			return "", err
		}
		for i := range rules { // In the order in which the kernel asks them.
			if rules[i].Mark == o.mark() && rules[i].Table == int(o.mark()) {
				break
			}
			if f.taken(&rules[i]) {
				all = append(all, fmt.Sprintf("ip -%c rule show priority %d", map[int]rune{unix.AF_INET: '4', unix.AF_INET6: '6'}[family], rules[i].Priority))
			}
		}
	}
	return strings.Join(slices.Compact(all), ", "), nil
}

// rulesOf are the rules for routes of a family, with what they do in Type, which the library
// leaves out. When they change meanwhile that is zero, and they are looked at again.
func rulesOf(family int) ([]netlink.Rule, error) {
	rules, err := whole(func() ([]netlink.Rule, error) { return netlink.RuleList(family) })
	if err != nil && !absent(family, err) {
		return nil, fmt.Errorf("nftgateway: rules for routes: %w", err)
	}
	req := nl.NewNetlinkRequest(unix.RTM_GETRULE, unix.NLM_F_DUMP)
	req.AddData(nl.NewIfInfomsg(family))
	messages, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWRULE)
	if err == nil && len(messages) == len(rules) {
		for i, m := range messages {
			rules[i].Type = nl.DeserializeRtMsg(m).Type
		}
	}
	return rules, nil
}

// addressed are the networks whose addresses are this system's, or nobody's: no packet that goes
// further is from one of them, or to it.
func addressed(family int) ([]netip.Prefix, error) {
	routes, err := whole(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_LOCAL}, netlink.RT_FILTER_TABLE)
	})
	if err != nil && !absent(family, err) {
		return nil, fmt.Errorf("nftgateway: addresses: %w", err)
	}
	here := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("255.255.255.255/32")}
	for _, r := range routes {
		if p, ok := prefix(r.Dst); ok && r.Type != unix.RTN_UNICAST {
			here = append(here, p)
		}
	}
	return here, nil
}

func prefix(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(a, bits), ok
}

// forwarded are the packets that come in on the interfaces, go further and have the mark.
type forwarded struct {
	mark  uint32
	names []string
	here  []netip.Prefix // to which and from which they are not
}

// taken reports whether a rule could decide where one of them goes. Whether its table has a route
// for that is not looked at.
func (f *forwarded) taken(r *netlink.Rule) bool {
	const gotoRule, nop = 2, 3 // FR_ACT_GOTO, FR_ACT_NOP
	switch {
	case r.Table == unix.RT_TABLE_LOCAL, r.Type == nop, r.Type == gotoRule && r.Goto <= priority:
		return false
	case r.Invert:
		return !f.all(r)
	}
	return f.some(r)
}

// some reports whether what a rule says is so of some of them.
func (f *forwarded) some(r *netlink.Rule) bool {
	return f.each(r) && (r.IifName == "" || slices.Contains(f.names, r.IifName)) && f.elsewhere(r.Src) && f.elsewhere(r.Dst) &&
		(r.IPProto == 0 || r.IPProto == unix.IPPROTO_TCP || r.IPProto == unix.IPPROTO_UDP)
}

// all reports whether it is so of all.
func (f *forwarded) all(r *netlink.Rule) bool {
	other := func(name string) bool { return name != r.IifName }
	return f.each(r) && (r.IifName == "" || !slices.ContainsFunc(f.names, other)) && r.Src == nil && r.Dst == nil &&
		r.IPProto == 0 && r.Sport == nil && r.Dport == nil && r.Tos == 0
}

// each reports whether that part of it is so which is the same for all: no program of a user sends
// them, and where they go out is not known.
func (f *forwarded) each(r *netlink.Rule) bool {
	mask := ^uint32(0)
	if r.Mask != nil {
		mask = *r.Mask
	} else if r.Mark == 0 {
		mask = 0
	}
	return f.mark&mask == r.Mark && r.OifName == "" && (r.UIDRange == nil || r.UIDRange.Start == 0)
}

// elsewhere reports whether there can be one from, or to, a network of a rule, nil for any.
func (f *forwarded) elsewhere(n *net.IPNet) bool {
	p, ok := prefix(n)
	return !ok || !slices.ContainsFunc(f.here, func(here netip.Prefix) bool { return here.Bits() <= p.Bits() && here.Contains(p.Addr()) })
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
		routes, err := whole(func() ([]netlink.Route, error) {
			return netlink.RouteListFiltered(family, &netlink.Route{Table: int(mark), Type: unix.RTN_LOCAL}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
		})
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
