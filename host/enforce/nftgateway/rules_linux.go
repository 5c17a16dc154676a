package nftgateway

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// ports are where the gateway listens, for TCP and UDP; zero: not for that. The rules are marked
// with the run, by which they are told from those of an earlier one.
type ports struct {
	tcp, udp families[uint16]
	run      string
}

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

// A table is one, with its sets and chains, and the comment of its rules.
type table struct {
	nftables.Table
	sets    []set
	chains  []chain
	comment []byte
}

type set struct {
	nftables.Set
	elements []nftables.SetElement
}

// tables are the rule set: what comes in on the interfaces, goes further and is
// of a protocol that has a port is sent there, and the rest is refused.
func tables(o *Options, p ports, s *site) []table {
	take := chain{Chain: nftables.Chain{Name: "take", Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest}}
	send := redirectTo
	if o.Transparent {
		take.Type, take.Priority, send = nftables.ChainTypeFilter, nftables.ChainPriorityMangle, deliverTo(o.mark())
	}
	for _, family := range []byte{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6} {
		for protocol, at := range map[byte]*families[uint16]{unix.IPPROTO_TCP: &p.tcp, unix.IPPROTO_UDP: &p.udp} {
			if port := *at.of(family); port != 0 {
				take.add(is(meta(expr.MetaKeyNFPROTO), family), is(meta(expr.MetaKeyL4PROTO), protocol), original(), elsewhere(), send(family, port))
			}
		}
		if o.Transparent {
			take.add(is(meta(expr.MetaKeyNFPROTO), family), tooBig(family), related(), original(), elsewhere(), keep(o.mark()))
		}
	}
	refuse := chain{Chain: nftables.Chain{Name: "refuse", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter}}
	refuse.add(is(meta(expr.MetaKeyL4PROTO), unix.IPPROTO_TCP), established(), original(), []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}}) // It does not end by ICMP.
	for _, undecided := range refused() {
		refuse.add(undecided, []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}})
	}
	comment := userdata.AppendString(nil, userdata.TypeComment, p.run)
	all := []table{{nftables.Table{Name: o.tableName(), Family: nftables.TableFamilyINet}, sets(s.names, s.numbers), []chain{take, refuse}, comment}}
	if s.bridges {
		all = append(all, portTable(o, s, comment))
	}
	return all
}

// portTable drops what a port of a bridge hands to that to be routed. An interface that has
// become one comes in nowhere until the rules know its bridge.
func portTable(o *Options, s *site, comment []byte) table {
	drop := chain{Chain: nftables.Chain{Name: "drop", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter}}
	drop.add([]expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}})
	return table{nftables.Table{Name: o.tableName(), Family: nftables.TableFamilyBridge}, sets(s.free, s.freeNumbers), []chain{drop}, comment}
}

// add adds a rule for what comes in on the interfaces: by their names, which another one
// of the name has, too, and by their numbers, which they keep when they are renamed.
func (c *chain) add(parts ...[]expr.Any) {
	for _, s := range sets(nil, nil) {
		key := expr.MetaKeyIIFNAME
		if s.KeyType == nftables.TypeIFIndex {
			key = expr.MetaKeyIIF
		}
		in := []expr.Any{meta(key), &expr.Lookup{SourceRegister: register, SetName: s.Name}}
		c.rules = append(c.rules, slices.Concat(append([][]expr.Any{in}, parts...)...))
	}
}

// sets have the interfaces. With a rule for each the kernel takes no more than fifty:
// its answers do not fit a socket.
func sets(names []string, numbers []uint32) []set {
	byName := set{Set: nftables.Set{Name: "interfaces", KeyType: nftables.TypeIFName}}
	for _, name := range names {
		key := make([]byte, unix.IFNAMSIZ)
		copy(key, name)
		byName.elements = append(byName.elements, nftables.SetElement{Key: key})
	}
	byNumber := set{Set: nftables.Set{Name: "numbers", KeyType: nftables.TypeIFIndex}}
	for _, n := range numbers {
		byNumber.elements = append(byNumber.elements, nftables.SetElement{Key: binaryutil.NativeEndian.PutUint32(n)})
	}
	return []set{byName, byNumber}
}

const register = 1

func meta(key expr.MetaKey) expr.Any { return &expr.Meta{Key: key, Register: register} }

func is(load expr.Any, value byte) []expr.Any {
	return []expr.Any{load, &expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: []byte{value}}}
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

// refused is what goes no further from an interface: what has a source route, with which
// it came here as for this system; what belongs to no connection; and of who is inside all
// that is not an answer, although its connection is known: one from before these rules, one
// that TPROXY takes while nobody is there to take it, or one that it is only about
// ("related"), as an ICMP error is, in which he writes what he likes.
func refused() [][]expr.Any {
	const loose, strict = 131, 137 // IPOPT_LSRR, IPOPT_SSRR
	return [][]expr.Any{option(loose), option(strict), routed(), without(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED), original()}
}

// option matches packets of IPv4 that have an option.
func option(kind uint8) []expr.Any {
	const ofIPv4 expr.ExthdrOp = 2 // NFT_EXTHDR_OP_IPV4
	there := &expr.Exthdr{DestRegister: register, Op: ofIPv4, Type: kind, Len: 1, Flags: unix.NFT_EXTHDR_F_PRESENT}
	return slices.Concat(is(meta(expr.MetaKeyNFPROTO), unix.NFPROTO_IPV4), is(there, 1))
}

// routed matches packets of IPv6 that have a routing header.
func routed() []expr.Any {
	there := &expr.Exthdr{DestRegister: register, Op: expr.ExthdrOpIpv6, Type: unix.IPPROTO_ROUTING, Len: 1, Flags: unix.NFT_EXTHDR_F_PRESENT}
	return slices.Concat(is(meta(expr.MetaKeyNFPROTO), unix.NFPROTO_IPV6), is(there, 1))
}

// without matches packets whose connection is in none of these states.
func without(states uint32) []expr.Any { return inState(states, expr.CmpOpEq) }

// established matches packets of a connection that is known.
func established() []expr.Any { return inState(expr.CtStateBitESTABLISHED, expr.CmpOpNeq) }

// related matches packets that are only about a connection that is known, and those of one that it expects.
func related() []expr.Any { return inState(expr.CtStateBitRELATED, expr.CmpOpNeq) }

// tooBig matches ICMP errors that say by how much packets are too big for a link. One about what
// was carried, which is from the address of somebody else, is sent there.
func tooBig(family byte) []expr.Any {
	protocol, typeAndCode := byte(unix.IPPROTO_ICMP), []byte{3, 4}
	if family == unix.NFPROTO_IPV6 {
		protocol, typeAndCode = unix.IPPROTO_ICMPV6, []byte{2, 0}
	}
	return slices.Concat(is(meta(expr.MetaKeyL4PROTO), protocol), []expr.Any{&expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: typeAndCode}})
}

func inState(of uint32, zero expr.CmpOp) []expr.Any {
	return []expr.Any{&expr.Ct{Key: expr.CtKeySTATE, Register: register},
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(of), Xor: make([]byte, 4)},
		&expr.Cmp{Op: zero, Register: register, Data: make([]byte, 4)}}
}

// redirectTo sends a connection to a port of the interface that it came in on.
func redirectTo(_ byte, port uint16) []expr.Any {
	return []expr.Any{&expr.Immediate{Register: register, Data: binaryutil.BigEndian.PutUint16(port)}, &expr.Redir{RegisterProtoMin: register}}
}

// deliverTo gives a connection to a port as it is, with the mark by which it is
// routed to this system.
func deliverTo(mark uint32) func(family byte, port uint16) []expr.Any {
	return func(family byte, port uint16) []expr.Any {
		return append([]expr.Any{&expr.Immediate{Register: register, Data: binaryutil.BigEndian.PutUint16(port)},
			&expr.TProxy{Family: family, TableFamily: byte(nftables.TableFamilyINet), RegPort: register}}, keep(mark)...)
	}
}

// keep has a packet routed to this system.
func keep(mark uint32) []expr.Any {
	return []expr.Any{&expr.Immediate{Register: register, Data: binaryutil.NativeEndian.PutUint32(mark)},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: register},
		&expr.Verdict{Kind: expr.VerdictAccept}}
}

// bridges reports whether the kernel has rules for the ports of bridges. Without them one
// that becomes a port is seen a moment later.
func (g *Gateway) bridges() bool {
	o := Options{Name: fmt.Sprintf("probe_%d", os.Getpid())}
	err := put([]table{portTable(&o, new(site), nil)})
	if err == nil {
		err = uninstall(&o)
	}
	if err != nil {
		g.opts.Logf("nftgateway: without nftables for bridges, what an interface that becomes a port of one receives is not decided for a moment: %v", err)
	}
	return err == nil
}

// install puts the rule set in the place of the one that is there, in one step.
func install(o *Options, p ports, s *site) error { return put(tables(o, p, s)) }

// numbering is held while sets are made: the library numbers those of all gateways by one
// variable.
var numbering sync.Mutex

func put(tables []table) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftgateway: %w", err)
	}
	numbering.Lock()
	defer numbering.Unlock()
	for i := range tables {
		if err := tables[i].add(c); err != nil {
			return fmt.Errorf("nftgateway: table %s: %w", tables[i].Name, err)
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nftgateway: table %s: %w", tables[0].Name, err)
	}
	return nil
}

// add adds a table to what is sent, in the place of the one of its name.
func (t *table) add(c *nftables.Conn) error {
	c.AddTable(&t.Table) // So that there is one to delete.
	c.DelTable(&t.Table)
	c.AddTable(&t.Table)
	return t.fill(c)
}

// fill adds what a table has.
func (t *table) fill(c *nftables.Conn) error {
	for _, s := range t.sets {
		s.Table = &t.Table
		if err := c.AddSet(&s.Set, s.elements); err != nil {
			return err
		}
	}
	for _, ch := range t.chains {
		ch.Table = &t.Table
		added := c.AddChain(&ch.Chain)
		for _, r := range ch.rules {
			c.AddRule(&nftables.Rule{Table: &t.Table, Chain: added, Exprs: r, UserData: t.comment})
		}
	}
	return nil
}

// inForce reports whether all of a table is there, and of this run: who saves the rules of a
// system and puts them back later puts those of then back.
func (t *table) inForce() bool {
	c, err := nftables.New()
	if err != nil {
		return false
	}
	for _, s := range t.sets {
		s.Table = &t.Table
		if got, err := c.GetSetElements(&s.Set); err != nil || !slices.Equal(keys(got), keys(s.elements)) {
			return false
		}
	}
	for _, ch := range t.chains {
		got, err := c.GetRules(&t.Table, &ch.Chain)
		if err != nil || len(got) != len(ch.rules) || slices.ContainsFunc(got, func(r *nftables.Rule) bool { return !bytes.Equal(r.UserData, t.comment) }) {
			return false
		}
	}
	return true
}

// keys are those of a set, in order.
func keys(elements []nftables.SetElement) (all []string) {
	for _, e := range elements {
		all = append(all, string(e.Key))
	}
	slices.Sort(all)
	return all
}

// uninstall removes the rule set, as far as it is there.
func uninstall(o *Options) error {
	for _, family := range []nftables.TableFamily{nftables.TableFamilyBridge, nftables.TableFamilyINet} {
		if err := remove(o.tableName(), family); err != nil && !(family == nftables.TableFamilyBridge && unknownTo(err)) {
			return err
		}
	}
	return nil
}

// remove removes a table if it is there.
func remove(name string, family nftables.TableFamily) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftgateway: %w", err)
	}
	c.DelTable(&nftables.Table{Name: name, Family: family})
	if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("nftgateway: table %s: %w", name, err)
	}
	return nil
}
