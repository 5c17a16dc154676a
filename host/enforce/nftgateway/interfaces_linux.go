package nftgateway

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A site is what of the system the rules depend on.
type site struct {
	names   []string // of the interfaces that packets come in on: also of what has them for ports
	numbers []uint32 // of those that are named in Options, now or when they were
	// Of those that are no ports, and must not become any unseen.
	free        []string
	freeNumbers []uint32
	bridges     bool // the kernel has rules for ports of bridges
}

func (s *site) equal(other *site) bool {
	return slices.Equal(s.names, other.names) && slices.Equal(s.numbers, other.numbers) && slices.Equal(s.free, other.free) && slices.Equal(s.freeNumbers, other.freeNumbers)
}

// look finds what has become of the interfaces.
func (o *Options) look(before *site) (*site, error) {
	links, err := whole(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("nftgateway: interfaces: %w", err)
	}
	byNumber := map[int]*netlink.LinkAttrs{}
	for _, l := range links {
		byNumber[l.Attrs().Index] = l.Attrs()
	}
	s := &site{names: slices.Clone(o.Interfaces), bridges: before.bridges}
	port := map[string]bool{}
	for n, l := range byNumber {
		if !slices.Contains(o.Interfaces, l.Name) && !slices.Contains(before.numbers, uint32(n)) {
			continue
		}
		s.names = append(s.names, l.Name)
		s.numbers = append(s.numbers, uint32(n))
		if port[l.Name] = l.MasterIndex != 0; !port[l.Name] {
			s.freeNumbers = append(s.freeNumbers, uint32(n))
		}
		for of, depth := byNumber[l.MasterIndex], 0; of != nil && depth < maxNested; of, depth = byNumber[of.MasterIndex], depth+1 {
			s.names = append(s.names, of.Name)
		}
	}
	for _, name := range o.Interfaces {
		if !port[name] {
			s.free = append(s.free, name)
		}
	}
	for _, names := range []*[]string{&s.names, &s.free} {
		slices.Sort(*names)
		*names = slices.Compact(*names)
	}
	slices.Sort(s.numbers)
	slices.Sort(s.freeNumbers)
	return s, nil
}

// whole is what a list of the kernel's says that nothing changed of while it was read. Where that
// goes on changing it is an error.
func whole[T any](list func() (T, error)) (all T, err error) {
	const most = 50
	for range most {
		if all, err = list(); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return all, err
}

const maxNested = 8 // A bridge in a VRF, and what somebody may make of that.

// comeIn refuses an interface on which nothing comes in as the rules see it. What a port of
// a bridge, a bond or a VRF receives comes in on that: the rules would match nothing, and
// all of it would go through undecided.
func (o *Options) comeIn() error {
	for _, name := range o.Interfaces {
		if _, err := net.InterfaceByName(name); err != nil {
			return fmt.Errorf("nftgateway: interface %s: %w", name, err)
		}
		link, err := netlink.LinkByName(name)
		if err != nil {
			return fmt.Errorf("nftgateway: interface %s: %w", name, err)
		}
		if of := link.Attrs().MasterIndex; of != 0 {
			master := fmt.Sprint("number ", of)
			if m, err := netlink.LinkByIndex(of); err == nil {
				master = m.Attrs().Name
			}
			return fmt.Errorf("nftgateway: interface %s is a port of %s, and what it receives comes in on that: name %[2]s", name, master)
		}
	}
	return o.reachable(o.Interfaces)
}

// reachable refuses a bridge whose packets TPROXY loses: where the kernel shows them to
// iptables on their way into the bridge it does not again when they come out.
func (o *Options) reachable(names []string) error {
	var shown []string
	for _, key := range []string{"net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables"} {
		if b, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(key, ".", "/")); err == nil && strings.TrimSpace(string(b)) != "0" {
			shown = append(shown, key+"=0")
		}
	}
	if !o.Transparent || len(shown) == 0 {
		return nil
	}
	for _, name := range names {
		if link, err := netlink.LinkByName(name); err == nil && link.Type() == "bridge" {
			return fmt.Errorf("nftgateway: interface %s is a bridge, and br_netfilter loses what TPROXY takes there: as root, sysctl %s, or do without --transparent", name, strings.Join(shown, " "))
		}
	}
	return nil
}

// free refuses an interface that is another gateway's, also one that died: which of the two
// the kernel sends a connection to depends on when their rules were made, and the policy of
// the other one is not asked.
func (o *Options) free() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftgateway: %w", err)
	}
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return fmt.Errorf("nftgateway: tables: %w", err)
	}
	for _, t := range tables {
		table := strings.TrimSuffix(t.Name, guardSuffix) // While the rules are away that is there.
		if table == o.tableName() || !strings.HasPrefix(t.Name, (&Options{}).tableName()) {
			continue
		}
		theirs, err := named(c, t)
		if err != nil && !errors.Is(err, unix.ENOENT) { // It has gone meanwhile.
			return fmt.Errorf("nftgateway: table %s: %w", t.Name, err)
		}
		for _, name := range theirs {
			if slices.Contains(o.Interfaces, name) {
				return fmt.Errorf("nftgateway: interface %s is one of the gateway with the table %s: one gateway decides an interface; if that one has died, calloutd gateway --remove with its --name", name, table)
			}
		}
	}
	return nil
}

// named are the interfaces of a gateway's table; its lock has none.
func named(c *nftables.Conn, t *nftables.Table) (names []string, err error) {
	sets, err := c.GetSets(t)
	for _, s := range sets {
		if s.Name != "interfaces" {
			continue
		}
		elements, err := c.GetSetElements(s)
		if err != nil {
			return nil, err
		}
		for _, e := range elements {
			names = append(names, unix.ByteSliceToString(e.Key))
		}
	}
	return names, err
}
