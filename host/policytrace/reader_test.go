package policytrace

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/policyfile"
	"github.com/calloutd/calloutd/host/policyrun"
)

func TestTheEndOfASocketThatListenedNamesItsOwnAddress(t *testing.T) {
	r := Reader{Policy: &policyrun.Policy{File: new(policyfile.File)}}
	in := &fwps.Incoming{Layer: fwpm.LayerALEEndpointClosureV4, AppID: "/usr/bin/nc", ProcessID: 7, Local: netip.MustParseAddrPort("127.0.0.1:80")}
	e, text := r.Decision(in, &fwps.Decision{Action: fwp.ActionPermit})
	require.Equal(t, "ALE_ENDPOINT_CLOSURE_V4    /usr/bin/nc[7] at 127.0.0.1:80: permit\n    no filter matches (ARB-09)", text)
	require.Equal(t, "127.0.0.1:80", e.From)
	require.Empty(t, e.To)
}

// CH-16: whoever reads "block" and then "permit" is told why.
func TestABlockAtARedirectLayerSaysThatItGoesOn(t *testing.T) {
	r := Reader{Policy: &policyrun.Policy{File: new(policyfile.File)}}
	step := fwps.Step{Filter: 1, Name: "ask", Callout: "mine", Action: fwp.ActionBlock}
	for name, c := range map[string]struct {
		layer   fwpm.LayerID
		faulted bool
		told    bool
	}{
		"a callout blocks a connection":         {fwpm.LayerALEConnectRedirectV4, false, true},
		"a callout blocks a bind":               {fwpm.LayerALEBindRedirectV6, false, true},
		"a callout that failed stops it":        {fwpm.LayerALEConnectRedirectV4, true, false},
		"a block of ALE_AUTH_CONNECT is a stop": {fwpm.LayerALEAuthConnectV4, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			in := &fwps.Incoming{Layer: c.layer, AppID: "/usr/bin/nc", Remote: netip.MustParseAddrPort("192.0.2.1:80")}
			_, text := r.Decision(in, &fwps.Decision{Action: fwp.ActionBlock, Faulted: c.faulted, Steps: []fwps.Step{step}})
			require.Equal(t, c.told, strings.HasSuffix(text, "\n    a block at this layer stops nothing (CH-16): it goes on"), text)
		})
	}
}

// An address has many names: who reads of a block by one of them reads which one that is.
func TestABlockByNameNamesTheNameThatIsMet(t *testing.T) {
	block := fwpm.Filter{ID: 1, Name: "bad", Layer: fwpm.LayerALEAuthConnectV4, Action: fwp.ActionBlock, Conditions: []fwpm.Condition{{Field: fwpm.ConditionPeerName, Match: fwp.MatchPrefix, Value: fwp.Blob("example")}}}
	file := new(policyfile.File)
	file.Policy.Filters = []fwpm.Filter{{ID: 2}, block}
	r := Reader{Policy: &policyrun.Policy{File: file}}
	for _, c := range []struct {
		names      fwps.PeerNames
		name, also string
	}{
		{fwps.PeerNames{Names: []string{"new.example", "old.example"}}, "new.example", ""},
		{fwps.PeerNames{Names: []string{"new.test", "older.example", "oldest.example"}}, "older.example", "the address is also called older.example"},
		{fwps.PeerNames{Names: []string{"new.test"}, Forgotten: true}, "", "the address may be called so: names of it were forgotten"},
		{fwps.PeerNames{Forgotten: true}, "", "the address may be called so: names of it were forgotten"},
	} {
		in := &fwps.Incoming{Layer: fwpm.LayerALEAuthConnectV4, Remote: netip.MustParseAddrPort("192.0.2.1:80"), PeerNames: &c.names}
		e, text := r.Decision(in, &fwps.Decision{Action: fwp.ActionBlock, Steps: []fwps.Step{{Filter: 1, Name: "bad", Action: fwp.ActionBlock}}})
		require.Equal(t, c.also, e.Steps[0].Why)
		require.Contains(t, text, c.also)
		if c.also != "" {
			require.Equal(t, c.name, e.PeerName)
		}
		e, text = r.Blocked(&ale.BlockedError{Layer: in.Layer, Filter: 1, Remote: in.Remote, Why: "the policy blocks it", PeerNames: &c.names}, netip.AddrPort{})
		require.Equal(t, c.name, e.PeerName)
		require.Equal(t, strings.TrimSuffix("the policy blocks it, as "+c.also, ", as "), e.Why)
		require.True(t, strings.HasSuffix(text, e.Why), text)
	}
}
