package arbitrate

import (
	"cmp"
	"math/bits"
	"net/netip"
	"slices"

	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/internal/lpm"
)

// A cursor is a place in the order of a sublayer's filters: only those after it
// count.
type cursor struct {
	weight uint64
	id     fwpm.FilterID
	begun  bool
}

func (c cursor) admits(weight uint64, f *filter) bool {
	return !c.begun || weight < c.weight || weight == c.weight && f.ID > c.id
}

// together is how many sublayers share an index, so that one walk serves them all.
const together = 8

// A search is one walk through an index: the first matching filter of every
// sublayer, or of one of them after a place.
type search struct {
	in    *fwps.Incoming
	best  [together]*filter
	subs  uint8 // the sublayers that are asked
	after cursor

	port, protocol uint64
	user           uint64
}

// newSearch reads what the index needs of the incoming values once.
func newSearch(in *fwps.Incoming, subs uint8, after cursor) search {
	return search{in: in, subs: subs, after: after, port: uint64(in.Remote.Port()), protocol: uint64(in.Protocol), user: uint64(in.UserID)}
}

// open are the sublayers of some for which a filter of this weight could still be
// the first.
func (q *search) open(subs uint8, weight uint64) uint8 {
	subs &= q.subs
	for left := subs; left != 0; left &= left - 1 {
		at := bits.TrailingZeros8(left)
		if b := q.best[at]; b != nil && b.weight > weight {
			subs &^= 1 << at
		}
	}
	return subs
}

// before is the order of arbitration: the heavier first, then the older (AMB-37).
func before(a, b *filter) int {
	return cmp.Or(cmp.Compare(b.weight, a.weight), cmp.Compare(a.ID, b.ID))
}

// A node finds the heaviest matching filter of each sublayer among many filters
// without looking at each.
//
// Each filter is reached by its most selective condition that names exact values:
// the program, then the remote prefix, the user, the remote port or a narrow range
// of them, the local port, the protocol. What has none of them is in the list, which is short or, at worst,
// all there is: then the cost is that of the list, cut by the weight of what is
// found already. A filter with several values for a field is reached by each.
type node struct {
	list []entry // in order, the sublayers mixed
	most uint64  // the weight of the heaviest filter here and below
	subs uint8   // the sublayers of the filters here and below
	mine uint8   // and of those in the list

	app        map[string]*node
	remote     lpm.Table[*node]
	user       map[uint64]*node
	remotePort map[uint64]*node
	remoteBin  map[uint64]*node // by port / portBin: ranges of ports
	localPort  map[uint64]*node
	protocol   map[uint64]*node
}

const (
	// aFew filters are looked at one by one: an index costs more.
	aFew = 12
	// manyValues for one field are not worth as many entries.
	manyValues = 16
	// portBin is the width of the bins for port ranges.
	portBin = 1024
)

// newNode makes the index of filters, which it sorts.
func newNode(filters []*filter) *node { return build(filters, 0) }

// An entry is a filter in a list, with what most filters say at hand: to look at
// the filter itself costs a cache miss.
type entry struct {
	f      *filter
	weight uint64
	brief
}

// A brief is the part of a filter's conditions that most filters have. It stands
// for the tests that it was made from.
type brief struct {
	low, high uint16 // remote port
	user      uint32
	protocol  uint8
	place     uint8 // of the sublayer in its group
	has       uint8 // of the fields above, by access
}

// meets reports whether the search is for what the brief says.
func (b *brief) meets(q *search) bool {
	return (b.has&(1<<byRemotePort) == 0 || q.in.Remote.IsValid() && uint64(b.low) <= q.port && q.port <= uint64(b.high)) &&
		(b.has&(1<<byProtocol) == 0 || uint64(b.protocol) == q.protocol) &&
		(b.has&(1<<byUser) == 0 || q.in.UserKnown && uint64(b.user) == q.user)
}

// take puts into the brief what it can hold of a filter's tests and returns the
// others.
func (b *brief) take(tests []test) []test {
	single := func(i int) bool { // no alternatives
		return (i == 0 || tests[i-1].field != tests[i].field) && (i == len(tests)-1 || tests[i+1].field != tests[i].field)
	}
	rest := tests[:0]
	for i := range tests {
		t := tests[i]
		switch {
		case !single(i) || t.not:
			rest = append(rest, t)
		case t.field == fwpm.ConditionIPRemotePort && t.kind == inRange:
			b.low, b.high, b.has = uint16(t.low), uint16(t.high), b.has|1<<byRemotePort
		case t.field == fwpm.ConditionIPProtocol && t.exact(byProtocol):
			b.protocol, b.has = uint8(t.low), b.has|1<<byProtocol
		case t.field == fwpm.ConditionALEUserID && t.exact(byUser):
			b.user, b.has = t.more.aces[0].id, b.has|1<<byUser
		default:
			rest = append(rest, t)
		}
	}
	return rest
}

// values are the exact values of a field that the brief holds, as in parts.
func (b *brief) values(at access) (from, to uint64, ok bool) {
	switch {
	case at == byUser && b.has&(1<<byUser) != 0:
		return uint64(b.user), uint64(b.user), true
	case at == byRemotePort && b.has&(1<<byRemotePort) != 0 && b.low == b.high:
		return uint64(b.low), uint64(b.low), true
	case at == byRemoteBin && b.has&(1<<byRemotePort) != 0 && b.low != b.high:
		return uint64(b.low) / portBin, uint64(b.high) / portBin, true
	case at == byProtocol && b.has&(1<<byProtocol) != 0:
		return uint64(b.protocol), uint64(b.protocol), true
	}
	return 0, 0, false
}

// An access is a way to reach filters.
type access uint8

// The ways, the most selective first.
const (
	byApp access = iota
	byRemote
	byUser
	byRemotePort
	byRemoteBin
	byLocalPort
	byProtocol
	ways
)

func build(filters []*filter, used uint8) *node {
	slices.SortFunc(filters, before)
	n := &node{}
	if len(filters) > 0 {
		n.most = filters[0].weight
	}
	defer n.summarize(filters)
	if len(filters) <= aFew || bits.OnesCount8(used) == int(ways) {
		n.list = make([]entry, 0, len(filters))
		for _, f := range filters {
			n.list = append(n.list, entry{f, f.weight, f.brief})
		}
		return n
	}
	var parts [ways]parts
	for _, f := range filters {
		at := f.reach(used)
		if at == ways {
			n.list = append(n.list, entry{f, f.weight, f.brief})
			continue
		}
		parts[at].add(f, at)
	}
	for at := range ways {
		n.attach(at, &parts[at], used|1<<at)
	}
	return n
}

// summarize notes whose filters there are.
func (n *node) summarize(filters []*filter) {
	for _, f := range filters {
		n.subs |= 1 << f.place
	}
	for i := range n.list {
		n.mine |= 1 << n.list[i].place
	}
}

// reach is the most selective way to a filter that is not used yet.
func (f *filter) reach(used uint8) access {
	for at := range ways {
		if used&(1<<at) == 0 && f.exact(at) {
			return at
		}
	}
	return ways
}

// group returns the tests on one field.
func (f *filter) group(field fwpm.ConditionID) []test {
	from := slices.IndexFunc(f.tests, func(t test) bool { return t.field == field })
	if from < 0 {
		return nil
	}
	to := from
	for to < len(f.tests) && f.tests[to].field == field {
		to++
	}
	return f.tests[from:to]
}

var accessFields = [ways]fwpm.ConditionID{byApp: fwpm.ConditionALEAppID, byRemote: fwpm.ConditionIPRemoteAddress, byUser: fwpm.ConditionALEUserID,
	byRemotePort: fwpm.ConditionIPRemotePort, byRemoteBin: fwpm.ConditionIPRemotePort, byLocalPort: fwpm.ConditionIPLocalPort, byProtocol: fwpm.ConditionIPProtocol}

// exact reports whether the filter names a few values of the field.
func (f *filter) exact(at access) bool {
	if from, to, ok := f.values(at); ok {
		return to-from < manyValues
	}
	if at == byRemoteBin {
		return false
	}
	g := f.group(accessFields[at])
	if len(g) == 0 || len(g) > manyValues {
		return false
	}
	for i := range g {
		if !g[i].exact(at) {
			return false
		}
	}
	return true
}

func (t *test) exact(at access) bool {
	if t.not {
		return false
	}
	switch at {
	case byApp:
		return t.kind == textIs
	case byRemote:
		return t.kind == masked && contiguous(t.high) || t.kind == masked6 || t.kind == inRange && t.low == t.high ||
			t.kind == inRange6 && t.low == t.high && t.more.low2 == t.more.high2
	case byUser:
		return t.kind == granted && len(t.more.aces) == 1 && t.more.aces[0].user()
	}
	return t.kind == inRange && t.low == t.high
}

// contiguous reports whether a mask is that of a prefix: FWP_MATCH_FLAGS_* makes
// others.
func contiguous(mask uint64) bool {
	return bits.OnesCount32(^uint32(mask)) == bits.Len32(^uint32(mask))
}

// user reports whether the entry lets exactly one Unix user match.
func (a *ace) user() bool { return !a.deny && !a.everyone && !a.group && a.sid == "" }

// parts are the filters that one way leads to, by value.
type parts struct {
	app    map[string][]*filter
	remote map[netip.Prefix][]*filter
	number map[uint64][]*filter
}

func (p *parts) add(f *filter, at access) {
	if from, to, ok := f.values(at); ok {
		for v := from; v <= to; v++ {
			put(&p.number, v, f)
		}
		return
	}
	g := f.group(accessFields[at])
	for i := range g {
		switch t := &g[i]; at {
		case byApp:
			put(&p.app, t.more.text, f)
		case byRemote:
			put(&p.remote, t.prefix(), f)
		case byUser:
			put(&p.number, uint64(t.more.aces[0].id), f)
		default:
			put(&p.number, t.low, f)
		}
	}
}

func put[K comparable](m *map[K][]*filter, k K, f *filter) {
	if *m == nil {
		*m = map[K][]*filter{}
	}
	if l := (*m)[k]; len(l) == 0 || l[len(l)-1] != f { // The same value twice is one.
		(*m)[k] = append(l, f)
	}
}

// prefix is the prefix of an address test.
func (t *test) prefix() netip.Prefix {
	var b [16]byte
	switch t.kind {
	case masked, inRange:
		length := 32
		if t.kind == masked {
			length = bits.OnesCount32(uint32(t.high))
		}
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(t.low >> 24), byte(t.low >> 16), byte(t.low >> 8), byte(t.low)}), length)
	case masked6:
		putWords(&b, t.low, t.more.low2)
		return netip.PrefixFrom(netip.AddrFrom16(b), bits.OnesCount64(t.high)+bits.OnesCount64(t.more.high2))
	}
	putWords(&b, t.low, t.more.low2)
	return netip.PrefixFrom(netip.AddrFrom16(b), 128)
}

// attach makes the nodes that a way leads to.
func (n *node) attach(at access, p *parts, used uint8) {
	switch at {
	case byApp:
		n.app = nodes(p.app, used)
	case byRemote:
		if len(p.remote) > 0 {
			n.remote = lpm.New(nodes(p.remote, used))
		}
	case byUser:
		n.user = nodes(p.number, used)
	case byRemotePort:
		n.remotePort = nodes(p.number, used)
	case byRemoteBin:
		n.remoteBin = nodes(p.number, used)
	case byLocalPort:
		n.localPort = nodes(p.number, used)
	case byProtocol:
		n.protocol = nodes(p.number, used)
	}
}

func nodes[K comparable](m map[K][]*filter, used uint8) map[K]*node {
	if len(m) == 0 {
		return nil
	}
	out := make(map[K]*node, len(m))
	for k, fs := range m {
		out[k] = build(fs, used)
	}
	return out
}

// find walks down to every list that can have a first match.
func (n *node) find(q *search) {
	if n == nil || q.open(n.subs, n.most) == 0 {
		return
	}
	in := q.in
	if n.app != nil {
		n.app[in.AppID].find(q)
	}
	for e := n.remote.Lookup(in.Remote.Addr()); e != nil; e = e.Covering {
		e.Value.find(q)
	}
	if n.user != nil && in.UserKnown {
		n.user[q.user].find(q)
	}
	if n.remotePort != nil {
		n.remotePort[q.port].find(q)
	}
	if n.remoteBin != nil {
		n.remoteBin[q.port/portBin].find(q)
	}
	if n.localPort != nil {
		n.localPort[uint64(in.Local.Port())].find(q)
	}
	if n.protocol != nil {
		n.protocol[q.protocol].find(q)
	}
	n.scan(q)
}

// scan looks at the list, from the place on and as long as it can be better.
func (n *node) scan(q *search) {
	left := n.mine & q.subs
	list := n.list[n.from(q.after):]
	for i := range list {
		e := &list[i]
		mine := uint8(1) << e.place
		if left&mine == 0 {
			continue
		}
		b := q.best[e.place]
		switch {
		case b != nil && (b.weight > e.weight || b.weight == e.weight && before(b, e.f) < 0): // so are all that follow
		case !e.meets(q) || !q.after.admits(e.weight, e.f) || !e.f.matches(q.in):
			continue
		default:
			q.best[e.place] = e.f
		}
		if left &^= mine; left == 0 {
			return
		}
	}
}

// from is where in the list the filters after a place begin.
func (n *node) from(after cursor) int {
	if !after.begun || len(n.list) <= aFew {
		return 0
	}
	from, _ := slices.BinarySearchFunc(n.list, after, func(e entry, c cursor) int {
		if c.admits(e.weight, e.f) {
			return 1
		}
		return -1
	})
	return from
}
