package nftgateway

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A guard drops what the rules would refuse, behind them, while somebody has taken them away. The
// kernel keeps its table for its socket alone: who takes all rules of the system away leaves it.
// When the process dies it stays as the rules do, if the kernel can (6.9), and anybody may take it away.
type guard struct {
	c       *nftables.Conn
	table   table
	earlier bool   // it still is as one that died has left it
	told    uint64 // packets that it dropped, as told
}

// newGuard makes one, or takes that of one that died as it is, which renew makes this one's.
func newGuard(o *Options, s *site) (*guard, error) {
	g := &guard{table: table{Table: nftables.Table{Name: o.tableName() + guardSuffix, Family: nftables.TableFamilyINet}, sets: sets(s.names, s.numbers), chains: guardChains(o)}}
	var err error
	g.c, err = nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
		err := claim(c, g.table.Name, ownedTable|persistentTable, 0)
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) {
			err = claim(c, g.table.Name, ownedTable, netlink.Excl)
		}
		if err != nil {
			return errors.Join(err, c.Close())
		}
		return nil
	}))
	if err != nil {
		return nil, fmt.Errorf("nftgateway: table %s: %w", g.table.Name, err)
	}
	there, err := g.chains()
	if g.earlier = len(there) > 0; err == nil && !g.earlier {
		err = g.renew()
	}
	if err != nil {
		return nil, errors.Join(err, g.close())
	}
	return g, nil
}

// chains are those that there are.
func (g *guard) chains() ([]*nftables.Chain, error) {
	all, err := whole(func() ([]*nftables.Chain, error) { return g.c.ListChainsOfTableFamily(g.table.Family) })
	if err != nil {
		return nil, fmt.Errorf("nftgateway: table %s: %w", g.table.Name, err)
	}
	return slices.DeleteFunc(all, func(c *nftables.Chain) bool { return c.Table.Name != g.table.Name }), nil
}

// renew puts what a guard has in the place of what is there, in one step.
func (g *guard) renew() error {
	chains, err := g.chains()
	if err != nil {
		return err
	}
	sets, err := whole(func() ([]*nftables.Set, error) { return g.c.GetSets(&g.table.Table) })
	if err != nil {
		return fmt.Errorf("nftgateway: table %s: %w", g.table.Name, err)
	}
	numbering.Lock()
	defer numbering.Unlock()
	for _, ch := range chains { // Before the chains that rules jump to, and the sets that they look into.
		g.c.FlushChain(ch)
	}
	for _, ch := range chains {
		g.c.DelChain(ch)
	}
	for _, s := range sets {
		g.c.DelSet(s)
	}
	if err = g.table.fill(g.c); err == nil {
		err = g.c.Flush()
	}
	if err != nil {
		return fmt.Errorf("nftgateway: table %s: %w", g.table.Name, err)
	}
	g.earlier = false
	return nil
}

const guardSuffix = ".guard"

// guardChains drop: who sends again is decided then. One that translates nothing has the kernel
// translate what it has begun to.
func guardChains(o *Options) []chain {
	afterRules := *nftables.ChainPriorityFilter + 10
	drop := chain{Chain: nftables.Chain{Name: "drop", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: &afterRules}}
	for _, undecided := range refused() {
		drop.add(undecided, []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}})
	}
	if o.Transparent {
		return []chain{drop}
	}
	translate := chain{Chain: nftables.Chain{Name: "translate", Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest}}
	return []chain{drop, translate}
}

// cover has it look at the interfaces of a site, from one moment to the next.
func (g *guard) cover(s *site) error {
	numbering.Lock()
	defer numbering.Unlock()
	for _, set := range sets(s.names, s.numbers) {
		set.Table = &g.table.Table
		g.c.FlushSet(&set.Set)
		if err := g.c.SetAddElements(&set.Set, set.elements); err != nil {
			return err
		}
	}
	if err := g.c.Flush(); err != nil {
		return fmt.Errorf("nftgateway: table %s: %w", g.table.Name, err)
	}
	return nil
}

// inForce reports whether all of it is there.
func (g *guard) inForce() bool {
	for _, ch := range g.table.chains {
		rules, err := g.c.GetRules(&g.table.Table, &ch.Chain)
		if err != nil || len(rules) != len(ch.rules) {
			return false
		}
	}
	return true
}

// dropped is how many packets it dropped that are not told yet.
func (g *guard) dropped() uint64 {
	rules, err := g.c.GetRules(&g.table.Table, &g.table.chains[0].Chain)
	if err != nil {
		return 0
	}
	var now uint64
	for _, r := range rules {
		for _, e := range r.Exprs {
			if c, ok := e.(*expr.Counter); ok {
				now += c.Packets
			}
		}
	}
	n := now - g.told
	g.told = now
	return n
}

// close takes it away, but for one that is as another has left it.
func (g *guard) close() error {
	var err error
	if !g.earlier {
		g.c.DelTable(&g.table.Table)
		err = g.c.Flush()
	}
	return errors.Join(err, g.c.CloseLasting())
}

// removeGuard removes that of one that died.
func removeGuard(o *Options) error {
	return remove(o.tableName()+guardSuffix, nftables.TableFamilyINet)
}
