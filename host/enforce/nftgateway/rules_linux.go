package nftgateway

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// ports are where the gateway listens, for TCP and UDP; zero: not for that.
type ports struct{ tcp, udp families[uint16] }

// families has one of something for each family.
type families[T any] struct{ v4, v6 T }

// of is that of a family of nftables.
func (f *families[T]) of(family byte) *T {
	if family == unix.NFPROTO_IPV6 {
		return &f.v6
	}
	return &f.v4
}

// A chain is one of the table, with its rules.
type chain struct {
	nftables.Chain
	rules [][]expr.Any
}

// chains is the rule set: what comes in on the interfaces, goes further and is
// of a protocol that has a port is sent there, and the rest is refused.
func chains(o *Options, p ports) []chain {
	take := chain{Chain: nftables.Chain{Name: "take", Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest}}
	send := redirectTo
	if o.Transparent {
		take.Type, take.Priority, send = nftables.ChainTypeFilter, nftables.ChainPriorityMangle, deliverTo(o.mark())
	}
	for _, family := range []byte{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6} {
		for protocol, at := range map[byte]*families[uint16]{unix.IPPROTO_TCP: &p.tcp, unix.IPPROTO_UDP: &p.udp} {
			if port := *at.of(family); port != 0 {
				take.rules = append(take.rules, join(inside(), is(meta(expr.MetaKeyNFPROTO), family), is(meta(expr.MetaKeyL4PROTO), protocol),
					original(), elsewhere(), send(family, port)))
			}
		}
	}
	refuse := chain{Chain: nftables.Chain{Name: "refuse", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter}}
	for _, undecided := range refused(o) {
		refuse.rules = append(refuse.rules, join(inside(), undecided, []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}}))
	}
	return []chain{take, refuse}
}

func join(parts ...[]expr.Any) (all []expr.Any) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

const register = 1

func meta(key expr.MetaKey) expr.Any { return &expr.Meta{Key: key, Register: register} }

func is(load expr.Any, value byte) []expr.Any {
	return []expr.Any{load, &expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: []byte{value}}}
}

// interfaces is the set of the table that has their names. With a rule for each
// the kernel takes no more than fifty: its answers do not fit a socket.
const interfaces = "interfaces"

func names(o *Options) (set []nftables.SetElement) {
	for _, name := range o.Interfaces {
		key := make([]byte, unix.IFNAMSIZ)
		copy(key, name)
		set = append(set, nftables.SetElement{Key: key})
	}
	return set
}

// inside matches what comes in on one of the interfaces.
func inside() []expr.Any {
	return []expr.Any{meta(expr.MetaKeyIIFNAME), &expr.Lookup{SourceRegister: register, SetName: interfaces}}
}

// original matches packets in the direction of who connected.
func original() []expr.Any { return is(&expr.Ct{Key: expr.CtKeyDIRECTION, Register: register}, 0) }

// elsewhere matches what is not for this system: it is an address of somebody
// else, one to be routed.
func elsewhere() []expr.Any {
	const unicast = 1 // RTN_UNICAST
	return []expr.Any{&expr.Fib{Register: register, ResultADDRTYPE: true, FlagDADDR: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: binaryutil.NativeEndian.PutUint32(unicast)}}
}

// refused is what goes no further from an interface: what belongs to no connection; of
// who is inside also what is only about one ("related"), as an ICMP error is, in which he
// writes what he likes; and what TPROXY takes, which comes here when nobody is there to
// take it, although its connection is known.
func refused(o *Options) [][]expr.Any {
	all := [][]expr.Any{without(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED), join(original(), without(expr.CtStateBitESTABLISHED))}
	if o.Transparent {
		for _, protocol := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			all = append(all, join(is(meta(expr.MetaKeyL4PROTO), protocol), original()))
		}
	}
	return all
}

// without matches packets whose connection is in none of these states.
func without(states uint32) []expr.Any {
	return []expr.Any{&expr.Ct{Key: expr.CtKeySTATE, Register: register},
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(states), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: make([]byte, 4)}}
}

// redirectTo sends a connection to a port of the interface that it came in on.
func redirectTo(_ byte, port uint16) []expr.Any {
	return []expr.Any{&expr.Immediate{Register: register, Data: binaryutil.BigEndian.PutUint16(port)}, &expr.Redir{RegisterProtoMin: register}}
}

// deliverTo gives a connection to a port as it is, with the mark by which it is
// routed to this system.
func deliverTo(mark uint32) func(family byte, port uint16) []expr.Any {
	return func(family byte, port uint16) []expr.Any {
		return []expr.Any{&expr.Immediate{Register: register, Data: binaryutil.BigEndian.PutUint16(port)},
			&expr.TProxy{Family: family, TableFamily: byte(nftables.TableFamilyINet), RegPort: register},
			&expr.Immediate{Register: register, Data: binaryutil.NativeEndian.PutUint32(mark)},
			&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: register},
			&expr.Verdict{Kind: expr.VerdictAccept}}
	}
}

// install puts the rule set in the place of the one that is there, in one step.
func install(o *Options, p ports) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftgateway: %w", err)
	}
	table := &nftables.Table{Name: o.tableName(), Family: nftables.TableFamilyINet}
	c.AddTable(table) // So that there is one to delete.
	c.DelTable(table)
	c.AddTable(table)
	if err := c.AddSet(&nftables.Set{Table: table, Name: interfaces, KeyType: nftables.TypeIFName}, names(o)); err != nil {
		return fmt.Errorf("nftgateway: table %s: %w", table.Name, err)
	}
	for _, ch := range chains(o, p) {
		ch.Table = table
		added := c.AddChain(&ch.Chain)
		for _, r := range ch.rules {
			c.AddRule(&nftables.Rule{Table: table, Chain: added, Exprs: r})
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nftgateway: table %s: %w", table.Name, err)
	}
	return nil
}

// uninstall removes the rule set, if there is one.
func uninstall(o *Options) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftgateway: %w", err)
	}
	c.DelTable(&nftables.Table{Name: o.tableName(), Family: nftables.TableFamilyINet})
	if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("nftgateway: table %s: %w", o.tableName(), err)
	}
	return nil
}
