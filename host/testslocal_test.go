package host_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
)

// Whoever finds out where connections come from does so only while a filter tests it.
func TestFiltersThatTestTheLocalAddress(t *testing.T) {
	const v4, v6 = fwpm.LayerALEAuthConnectV4, fwpm.LayerALEAuthConnectV6
	e := host.New(host.Options{})
	change := func(filters ...fwpm.Filter) {
		require.NoError(t, e.Update(func(p *fwpm.Policy) error {
			p.Callouts = []fwpm.Callout{{ID: "c", Name: "c"}}
			p.Filters = filters
			return nil
		}))
	}
	tests := func(c fwpm.ConditionID, v fwp.Value) fwpm.Filter {
		return fwpm.Filter{ID: 1, Name: "tests", Layer: v4, Action: fwp.ActionBlock, Conditions: []fwpm.Condition{{Field: c, Match: fwp.MatchEqual, Value: v}}}
	}
	calls := fwpm.Filter{ID: 2, Name: "calls", Layer: v4, Action: fwp.ActionCalloutUnknown, Callout: "c"}
	require.False(t, e.TestsLocal(v4))
	for _, c := range []struct {
		filters []fwpm.Filter
		want    bool
	}{
		{[]fwpm.Filter{tests(fwpm.ConditionIPRemotePort, fwp.U16(25))}, false},
		{[]fwpm.Filter{tests(fwpm.ConditionIPLocalPort, fwp.U16(25)), calls}, false},
		{[]fwpm.Filter{tests(fwpm.ConditionIPLocalAddress, fwp.Addr(netip.MustParseAddr("192.0.2.1"))), calls}, true},
		{[]fwpm.Filter{tests(fwpm.ConditionIPLocalAddressType, fwp.U8(1))}, true},
		{[]fwpm.Filter{calls}, false},
		{nil, false},
	} {
		change(c.filters...)
		require.Equal(t, c.want, e.TestsLocal(v4))
		require.False(t, e.TestsLocal(v6))
	}
}
