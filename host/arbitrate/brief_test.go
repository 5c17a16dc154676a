package arbitrate

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// Of two weights the heavier never has the lesser code, and what a code is the code of
// is the least of its weights.
func TestCodesAreInTheOrderOfWeights(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	weight := func() uint64 { return r.Uint64() >> r.IntN(64) }
	for range 10_000 {
		a, b := weight(), weight()
		require.Equal(t, codeOf(max(a, b)), max(codeOf(a), codeOf(b)))
		least := codeOf(a).weight()
		require.LessOrEqual(t, least, a)
		require.Equal(t, codeOf(a), codeOf(least))
		require.True(t, least == 0 || codeOf(least-1) < codeOf(least), "weight %#x", a)
	}
}

// Filters whose weights have one code are in the order of their weights (AMB-37).
func TestWeightsOfOneCodeAreToldApart(t *testing.T) {
	const l, n = fwpm.LayerALEAuthConnectV4, 100
	p := new(fwpm.Policy)
	for id := 1; id <= n; id++ {
		p.Filters = append(p.Filters, fwpm.Filter{ID: fwpm.FilterID(id), Name: "f", Layer: l, Action: fwp.ActionPermit,
			Weight: fwpm.Weight{Type: fwp.Uint64, Value: 1<<62 | uint64(id*37%n)}})
	}
	require.Equal(t, codeOf(1<<62), codeOf(1<<62|n))
	prog, err := Compile(p, Options{})
	require.NoError(t, err)
	in := fwps.Incoming{Layer: l}
	m := newMirror(p)
	require.True(t, slices.IsSortedFunc(m.lists[fwpm.SublayerUniversal], func(a, b entry) int { return int(b.f.Weight.Value) - int(a.f.Weight.Value) }))
	m.check(t, prog, []fwps.Incoming{in})
}

// What is read of most filters that match is one line of the cache, and a bucket with
// its key half of one.
func TestSizesAreThoseOfTheCache(t *testing.T) {
	if unsafe.Sizeof(uintptr(0)) != 8 {
		t.Skip("pointers are shorter here: so is all that has them")
	}
	require.EqualValues(t, 64, unsafe.Sizeof(filter{}))
	require.EqualValues(t, 32, unsafe.Sizeof(entry{}))
	require.EqualValues(t, 64, 8+unsafe.Sizeof(bucket{}))
}

// What an entry has of its filter's weight and identifier orders entries as these do,
// also where neither fits.
func TestEntriesAreInTheOrderOfTheirFilters(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	c := newCompiler(new(Program), 0)
	some := func() *entry {
		f := &fwpm.Filter{ID: fwpm.FilterID(highest - 4 + r.Uint64N(8)), Weight: fwpm.Weight{Type: fwp.Uint64, Value: (1 << 40) + r.Uint64N(4)<<12}}
		e := c.fill(new(filter), f)
		e.f.own()
		return &e
	}
	for range 10_000 {
		a, b := some(), some()
		require.Equal(t, cmp.Or(cmp.Compare(b.f.Weight.Value, a.f.Weight.Value), cmp.Compare(a.f.Filter.ID, b.f.Filter.ID)), before(a, b))
	}
}

// What a brief says of loopback, and what it leaves to the tests, is what the filter's
// conditions on flags say, alone and as alternatives.
func TestBriefsTellLoopbackApart(t *testing.T) {
	const l, none = fwpm.LayerALEAuthConnectV4, fwp.ConditionFlags(0)
	flags := []fwp.ConditionFlags{fwp.FlagIsLoopback, fwp.FlagIsReauthorize, fwp.FlagIsLoopback | fwp.FlagIsReauthorize}
	var conditions []fwpm.Condition
	for _, m := range []fwp.Match{fwp.MatchEqual, fwp.MatchNotEqual, fwp.MatchGreaterOrEqual, fwp.MatchFlagsAllSet, fwp.MatchFlagsAnySet, fwp.MatchFlagsNoneSet} {
		for _, v := range flags {
			conditions = append(conditions, fwpm.Condition{Field: fwpm.ConditionFlags, Match: m, Value: fwp.U32(uint32(v))})
		}
	}
	p := new(fwpm.Policy)
	add := func(c ...fwpm.Condition) {
		p.Filters = append(p.Filters, fwpm.Filter{ID: fwpm.FilterID(len(p.Filters) + 1), Name: "f", Layer: l, Action: fwp.ActionPermit, Conditions: c})
	}
	for i := range conditions {
		add(conditions[i])
		add(conditions[i], conditions[(i+7)%len(conditions)])
	}
	prog, err := Compile(p, Options{})
	require.NoError(t, err)
	var ins []fwps.Incoming
	for _, f := range append(flags, none, fwp.FlagIsProxyConnection, ^none) {
		ins = append(ins, fwps.Incoming{Layer: l, Flags: f})
	}
	newMirror(p).check(t, prog, ins)
}
