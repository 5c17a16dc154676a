package policytrace

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/guest"
	"github.com/calloutd/calloutd/host/journal"
	"github.com/calloutd/calloutd/host/policyfile"
	"github.com/calloutd/calloutd/host/policyrun"
)

var empty = Reader{Policy: &policyrun.Policy{File: new(policyfile.File)}}

// All that can be said of a filter that was asked, and the least.
func TestAStepInWords(t *testing.T) {
	weight, sublayerWeight := uint64(0x10), uint16(0x9000)
	require.Equal(t, `filter 7 "web" (p.yaml:3) of ours, weight 0x10, in mine (0x9000) asks callout "c" (redirected-by-self): redirect to 127.0.0.1:80, hard, a veto: it is so (ARB-06) [decides]`,
		empty.describe(Step{Filter: 7, Name: "web", Place: "p.yaml:3", Provider: "ours", Weight: &weight, Sublayer: "mine", SublayerWeight: &sublayerWeight,
			Callout: "c", State: "redirected-by-self", Action: "redirect", To: "127.0.0.1:80", Hard: true, Veto: true, Why: "it is so", Rule: "ARB-06", Verdict: "decides"}))
	require.Equal(t, `filter 7 "web" in mine: permit`, empty.describe(Step{Filter: 7, Name: "web", Sublayer: "mine", Action: "permit", Rule: "ARB-01"}))

	p := Passed{Filter: 8, Name: "mail", Sublayer: "mine", SublayerWeight: sublayerWeight, Weight: weight, By: 7}
	require.Equal(t, `filter 8 "mail", weight 0x10, in mine (0x9000) is not asked: filter 7 decided the sublayer before it (ARB-01)`, p.String())
	p.Unless = []string{"IP_PROTOCOL is tcp", "IP_REMOTE_PORT is 25"}
	require.Equal(t, `filter 8 "mail", weight 0x10, in mine (0x9000) is not asked: it wants IP_PROTOCOL is tcp, and IP_REMOTE_PORT is 25`, p.String())

	require.Equal(t, []string{"        because a, b", "        the callout took 3 of 9 units of fuel", `        record "r", context none`},
		new(Details).of(&Step{Because: []string{"a", "b"}, Fuel: 3, FuelLimit: 9, Action: "redirect", Record: newBlob([]byte("r"))}))
	require.Empty(t, new(Details).of(&Step{Action: "permit"}))
	require.Empty(t, (*Details)(nil).of(&Step{Because: []string{"a"}}))
}

// A callout that two filters ask costs what each answer took.
func TestEachAnswerHasItsOwnCost(t *testing.T) {
	var d Details
	d.journal.Costs = []journal.Cost{{Callout: "other", Fuel: 1}, {Callout: "c", Fuel: 2}, {Callout: "c", Fuel: 3}}
	require.Equal(t, 2, d.next("c").Fuel)
	require.Equal(t, 3, d.next("c").Fuel)
	require.Nil(t, d.next("c"))
}

func TestBytesInWords(t *testing.T) {
	for bytes, want := range map[string]string{
		"":             "none",
		"plain":        `"plain"`,
		"two\nlines":   "74776f0a6c696e6573",
		"no UTF-8\xff": "6e6f205554462d38ff",
	} {
		require.Equal(t, want, newBlob([]byte(bytes)).String())
	}
	require.Equal(t, "SOCKADDR_STORAGE 192.0.2.1:80, 192.0.2.2:80", (&Blob{Hex: "00", Sockaddr: []string{"192.0.2.1:80", "192.0.2.2:80"}}).String())
}

// A reader sees the two ends as who spoke first and who answered.
func TestTheEndsOfAConnectionInWords(t *testing.T) {
	local, remote := netip.MustParseAddrPort("10.0.0.1:443"), netip.MustParseAddrPort("192.0.2.1:5000")
	for _, c := range []struct {
		in             fwps.Incoming
		from, to, text string
	}{
		{fwps.Incoming{Layer: fwpm.LayerALEAuthConnectV4, Local: local, Remote: remote}, "10.0.0.1:443", "192.0.2.1:5000", "unknown program -> 192.0.2.1:5000"},
		{fwps.Incoming{Layer: fwpm.LayerALEAuthRecvAcceptV4, Local: local, Remote: remote, Inbound: true}, "192.0.2.1:5000", "10.0.0.1:443", "unknown program <- 192.0.2.1:5000"},
		{fwps.Incoming{Layer: fwpm.LayerALEBindRedirectV4, Local: local, Remote: remote}, "10.0.0.1:443", "", "unknown program at 10.0.0.1:443"},
		{fwps.Incoming{Layer: fwpm.LayerALEAuthConnectV4, Local: netip.MustParseAddrPort("0.0.0.0:0"), Remote: remote}, "", "192.0.2.1:5000", "-> 192.0.2.1:5000"},
		{fwps.Incoming{Layer: fwpm.LayerALEAuthConnectV4, Local: netip.MustParseAddrPort("0.0.0.0:7"), Remote: remote}, "0.0.0.0:7", "192.0.2.1:5000", "-> 192.0.2.1:5000"},
		{fwps.Incoming{Layer: fwpm.LayerALEAuthConnectV4, Local: netip.MustParseAddrPort("10.0.0.1:0"), Remote: remote}, "10.0.0.1:0", "192.0.2.1:5000", "-> 192.0.2.1:5000"},
	} {
		e, text := empty.Decision(&c.in, &fwps.Decision{Action: fwp.ActionPermit})
		require.Equal(t, []string{c.from, c.to}, []string{e.From, e.To})
		require.Contains(t, text, c.text)

		// A denial says the same; its error has no local end.
		b := &ale.BlockedError{Layer: c.in.Layer, Remote: remote, AppID: "/usr/bin/nc", ProcessID: 7, Why: "so"}
		e, text = empty.Blocked(b, local)
		want := []string{"", "192.0.2.1:5000", " to 192.0.2.1:5000"}
		switch {
		case c.in.Inbound:
			want = []string{"192.0.2.1:5000", "10.0.0.1:443", " from 192.0.2.1:5000"}
		case c.to == "":
			want = []string{"10.0.0.1:443", "", ""}
		}
		require.Equal(t, want[:2], []string{e.From, e.To})
		require.Equal(t, "/usr/bin/nc[7]"+want[2]+" blocked at "+c.in.Layer.String()+": so", text)
		require.Equal(t, c.in.Inbound, e.Inbound)
	}
}

// What a callout made of a request is found in the request, also in one to bind.
func TestWhereACalloutSendsARequest(t *testing.T) {
	to := netip.MustParseAddrPort("127.0.0.1:8080")
	in := &fwps.Incoming{Layer: fwpm.LayerALEBindRedirectV4, Local: netip.MustParseAddrPort("10.0.0.1:443")}
	bind := &fwps.BindRequest{Local: in.Local, Previous: &fwps.BindRequest{Local: to, ModifierFilterID: 2, Previous: &fwps.BindRequest{Local: in.Local, ModifierFilterID: 1}}}
	e, text := empty.Decision(in, &fwps.Decision{Action: fwp.ActionPermit, Bind: bind, Steps: []fwps.Step{{Filter: 2, Redirected: true, Action: fwp.ActionPermit}}})
	require.Equal(t, "127.0.0.1:8080", e.Steps[0].To)
	require.Contains(t, text, ": redirect to 127.0.0.1:8080")
}

func TestWhatBecameOfARedirectAndOfACallout(t *testing.T) {
	ev := ale.RedirectEvent{Layer: fwpm.LayerALEConnectRedirectV4, Applied: true, Original: netip.MustParseAddrPort("192.0.2.1:80"), Target: netip.MustParseAddrPort("127.0.0.1:8080"), AppID: "/usr/bin/nc", ProcessID: 7, Rule: "CH-09", Why: "not loopback"}
	e, text := empty.Redirect(ev)
	require.Equal(t, "redirect", e.Event)
	require.Empty(t, text)
	ev.Applied = false
	e, text = empty.Redirect(ev)
	require.Equal(t, "redirect-refused", e.Event)
	require.Equal(t, "/usr/bin/nc[7] to 192.0.2.1:80: redirect to 127.0.0.1:8080 refused (CH-09): not loopback", text)
	ev.Applied, ev.Err = true, errors.New("nobody listens")
	e, text = empty.Redirect(ev)
	require.Equal(t, []string{"redirect-failed", "nobody listens"}, []string{e.Event, e.Why})
	require.Equal(t, "/usr/bin/nc[7] to 192.0.2.1:80 failed: redirected to 127.0.0.1:8080, where: nobody listens", text)

	e, text = Callout(guest.Event{Kind: guest.EventReloaded, Module: "c"})
	require.Equal(t, `callout "c" reloaded`, text)
	require.Empty(t, e.Why)
	e, text = Callout(guest.Event{Kind: guest.EventQuarantined, Module: "c", Err: errors.New("it failed five times")})
	require.Equal(t, "it failed five times", text)
	require.Equal(t, "it failed five times", e.Why)
}
