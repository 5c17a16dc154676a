package nftgateway

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
)

// A guard drops what the rules would refuse, behind them, while somebody has taken them away. The
// kernel keeps its table for its socket alone: who takes all rules of the system away leaves it.
type guard struct {
	c     *nftables.Conn
	table table
	told  uint64 // packets that it dropped, as told
}

// newGuard makes one, which goes with its socket.
func newGuard(o *Options, s *site) (*guard, error) {
	g := &guard{table: table{Table: nftables.Table{Name: o.tableName() + guardSuffix, Family: nftables.TableFamilyINet}, sets: sets(s.names, s.numbers), chains: guardChains(o)}}
	var err error
	g.c, err = nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
		if err := claim(c, g.table.Name); err != nil {
			return errors.Join(err, c.Close())
		}
		return nil
	}))
	if err != nil {
		return nil, fmt.Errorf("nftgateway: table %s: %w", g.table.Name, err)
	}
	numbering.Lock()
	defer numbering.Unlock()
	if err = g.table.fill(g.c); err == nil {
		err = g.c.Flush()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("nftgateway: table %s: %w", g.table.Name, err), g.close())
	}
	return g, nil
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

func (g *guard) close() error { return g.c.CloseLasting() }
