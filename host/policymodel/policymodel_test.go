package policymodel_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/policyfile"
	"github.com/calloutd/calloutd/host/policymodel"
	"github.com/calloutd/calloutd/host/policytest"
	"github.com/calloutd/calloutd/host/redirect"
)

// mine redirects the web to a proxy of its own, permits mail hard, blocks telnet and
// lets SSH in.
const mine = `version: 1
sublayers:
  - {id: top, weight: 0xffff}
proxies:
  - {id: mine, kind: forward, listen: "127.0.0.1:7000"}
callouts:
  - {id: mine, model: redirector, config: {to: ["${proxy:mine}"]}}
  - {id: takes, model: redirector, config: {to: ["${proxy:mine}"], takes_from_others: true}}
  - {id: no, model: blocker, config: {reason: no mail}}
filters:
  - {name: web, layer: ALE_CONNECT_REDIRECT_V4, action: callout, callout: mine, conditions: [{field: IP_REMOTE_PORT, value: 80}]}
  - {name: also theirs, layer: ALE_CONNECT_REDIRECT_V4, action: callout, callout: takes, conditions: [{field: IP_REMOTE_PORT, value: 81}]}
  - {name: mail, layer: ALE_AUTH_CONNECT, action: permit, hard: true, conditions: [{field: IP_REMOTE_PORT, value: 25}]}
  - {name: mail above all, layer: ALE_AUTH_CONNECT, sublayer: top, action: permit, hard: true, conditions: [{field: IP_REMOTE_PORT, value: 465}]}
  - {name: no telnet, layer: ALE_AUTH_CONNECT, action: block, conditions: [{field: IP_REMOTE_PORT, value: 23}]}
  - {name: SSH, layer: ALE_AUTH_RECV_ACCEPT, action: permit, conditions: [{field: IP_LOCAL_PORT, value: 22}]}
  - {name: SSH for sure, layer: ALE_AUTH_RECV_ACCEPT, action: permit, hard: true, conditions: [{field: IP_LOCAL_PORT, value: 2222}]}
`

// world is a policy with models beside it.
func world(t *testing.T, policy string, with ...string) *policytest.World {
	t.Helper()
	file, err := policyfile.Parse("mine.yaml", []byte(policy))
	require.NoError(t, err)
	var others []*policyfile.File
	for _, name := range with {
		var other *policyfile.File
		if strings.HasPrefix(name, "version:") {
			other, err = policyfile.Parse("other.yaml", []byte(name))
		} else {
			var text *policymodel.Text
			text, err = policymodel.Open("testdata", name)
			require.NoError(t, err)
			other, err = text.Policy()
		}
		require.NoError(t, err)
		others = append(others, other)
	}
	file, err = policyfile.Beside(file, others...)
	require.NoError(t, err)
	e := host.New(host.Options{})
	w := &policytest.World{Policy: file, Classifier: e, Proxies: map[string]netip.AddrPort{}, Handles: map[fwpm.CalloutID]redirect.Handle{}}
	w.NewTrace = func() policytest.Trace { return none{} }
	for i, p := range file.Proxies {
		w.Proxies[p.ID] = netip.AddrPortFrom(p.Listen.Addr(), uint16(7000+i))
	}
	for _, c := range file.Callouts {
		config, err := c.ConfigJSON(w.Proxies, 1)
		require.NoError(t, err)
		callout, err := policymodel.Callout(c.Model, config)
		require.NoError(t, err)
		w.Handles[c.ID], _, err = e.RegisterCallout(c.ID, callout)
		require.NoError(t, err)
	}
	require.NoError(t, e.Update(func(p *fwpm.Policy) error { *p = *file.Policy.Clone(); return nil }))
	return w
}

// none writes nothing down.
type none struct{}

func (none) Decision(*fwps.Incoming, *fwps.Decision) {}
func (none) Redirect(ale.RedirectEvent)              {}
func (none) Blocked(*ale.BlockedError)               {}
func (none) String() string                          { return "" }

func to(addr string) fwps.Incoming {
	return fwps.Incoming{AppID: "/usr/bin/curl", ProcessID: 1000, UserID: 1000, UserKnown: true, Protocol: fwps.ProtocolTCP, Remote: netip.MustParseAddrPort(addr)}
}

func from(addr string, in fwps.Incoming) fwps.Incoming {
	in.Local, in.Remote, in.Inbound = in.Remote, netip.MustParseAddrPort(addr), true
	return in
}

func udp(local string, in fwps.Incoming) fwps.Incoming {
	in.Protocol, in.Local = fwps.ProtocolUDP, netip.MustParseAddrPort(local)
	return in
}

func by(app string, in fwps.Incoming) fwps.Incoming {
	in.AppID = app
	return in
}

func through(luid uint64, in fwps.Incoming) fwps.Incoming {
	in.Other = map[fwpm.ConditionID]fwp.Value{fwpm.ConditionIPLocalInterface: {Type: fwp.Uint64, Uint: luid}}
	return in
}

const tunnel = 0x35000001000000

// What each model does beside the policy, and by which rule.
func TestModels(t *testing.T) {
	const vpn, wall, second = "vpn-kill-switch", "windows-firewall", "second-redirector"
	for _, c := range []struct {
		name string
		with string
		in   fwps.Incoming
		want string // the outcome, and the provider and filter that made it so
	}{
		{"ARB-01 the kill switch is above all: it blocks what the policy does not name", vpn, to("198.51.100.7:443"), `block by vpn-kill-switch "nothing else goes out"`},
		{"ARB-07 a hard permit in a lighter sublayer comes too late for a filter's block, which is hard (ARB-03)", vpn, to("198.51.100.7:25"), `block by vpn-kill-switch "nothing else goes out"`},
		{"what leaves through the tunnel is permitted, softly: the policy can still block it (ARB-05)", vpn, through(tunnel, to("198.51.100.7:23")), `block by this policy "no telnet"`},
		{"and is permitted where the policy says nothing", vpn, through(tunnel, to("198.51.100.7:443")), `permit by vpn-kill-switch "the tunnel, out"`},
		{"another interface is not the tunnel", vpn, through(1, to("198.51.100.7:443")), `block by vpn-kill-switch "nothing else goes out"`},
		{"ARB-04 the service's permit is hard: no lighter sublayer's filter can block it (ARB-07)", vpn, by("/usr/sbin/vpn-service", to("198.51.100.7:23")), `permit by vpn-kill-switch "the VPN's own service, out"`},
		{"loopback is permitted", vpn, to("127.0.0.1:9000"), `permit by vpn-kill-switch "loopback, out"`},
		{"the tunnel's resolver answers", vpn, udp("10.64.0.2:5000", to("10.64.0.1:53")), `permit by vpn-kill-switch "the tunnel's resolver"`},
		{"no other resolver does, not even through the tunnel", vpn, through(tunnel, udp("10.64.0.2:5000", to("192.0.2.53:53"))), `block by vpn-kill-switch "no other resolver"`},
		{"DHCP goes on", vpn, udp("0.0.0.0:68", to("255.255.255.255:67")), `permit by vpn-kill-switch "DHCP requests"`},
		{"and is answered", vpn, from("192.0.2.1:67", udp("0.0.0.0:0", to("192.0.2.9:68"))), `permit by vpn-kill-switch "DHCP answers"`},
		{"DHCPv6 goes on", vpn, udp("[fe80::1]:546", to("[ff02::1:2]:547")), `permit by vpn-kill-switch "DHCPv6 requests"`},
		{"nothing comes in", vpn, from("203.0.113.9:4000", to("192.0.2.1:22")), `block by vpn-kill-switch "nothing else comes in"`},
		{"what is redirected to a local proxy is loopback: the kill switch lets it pass", vpn, to("198.51.100.7:80"), `redirect by this policy "web"`},

		{"out is permitted", wall, to("198.51.100.7:443"), `permit by windows-firewall "Default Outbound"`},
		{"in is blocked", wall, from("203.0.113.9:4000", to("192.0.2.1:8080")), `block by windows-firewall "Default Inbound"`},
		{"ARB-05 a soft permit in a heavier sublayer does not open the firewall", wall, from("203.0.113.9:4000", to("192.0.2.1:22")), `block by windows-firewall "Default Inbound"`},
		{"ARB-07 a hard permit does", wall, from("203.0.113.9:4000", to("192.0.2.1:2222")), `permit by this policy "SSH for sure"`},
		{"loopback is not filtered", wall, from("127.0.0.1:4000", to("127.0.0.1:8080")), `permit by windows-firewall "Loopback, in"`},
		{"a rule lets in", wall + ":rules.txt", from("203.0.113.9:4000", to("192.0.2.1:8005")), `permit by windows-firewall "Web server (HTTP-In)"`},
		{"a block goes before a permit, and is hard", wall + ":rules.txt", to("198.51.100.7:465"), `permit by this policy "mail above all"`},
		{"a rule for a program", wall + ":rules.txt", by(`c:\program files\browser\browser.exe`, from("192.0.2.9:5353", udp("0.0.0.0:0", to("192.0.2.1:5353")))), `permit by windows-firewall "The browser, in"`},
		{"a rule for networks", wall + ":rules.txt", by("system", from("192.0.2.7:4000", to("192.0.2.1:445"))), `permit by windows-firewall "File server only from the office"`},
		{"and others stay out", wall + ":rules.txt", by("system", from("192.0.2.17:4000", to("192.0.2.1:445"))), `block by windows-firewall "Default Inbound"`},
		{"a rule of another profile does not count", wall + ":rules.txt", from("203.0.113.9:4000", to("192.0.2.1:5000")), `block by windows-firewall "Default Inbound"`},
		{"it does where that profile is meant", wall + ":private:rules.txt", from("203.0.113.9:4000", to("192.0.2.1:5000")), `permit by windows-firewall "At home"`},

		{"a connection that the policy leaves goes to the second proxy", second, to("198.51.100.7:443"), `redirect by second-redirector "everything to the second proxy"`},
		{"over IPv6 to its IPv6 proxy (CR-07)", second, to("[2001:db8::7]:443"), `redirect by second-redirector "everything to the second proxy"`},
		{"CR-11 the heavier one was first, and a policy that looks leaves it alone", second, to("198.51.100.7:80"), `redirect by second-redirector "everything to the second proxy"`},
		{"CR-11 one that does not look has the last word; the first is asked again (SC-73) and leaves it", second, to("198.51.100.7:81"), `redirect by this policy "also theirs"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := world(t, mine, c.with)
			o, err := w.Decide(t.Context(), w.Record(), c.in)
			require.NoError(t, err)
			require.NotEmpty(t, o.Reasons)
			r := o.Reasons[0]
			require.Equal(t, c.want, o.Action+" by "+policytest.Provider(r.Provider)+` "`+r.Name+`"`)
		})
	}
}

// Two redirectors beside each other, and what each is told at each proxy's connection.
const chains = `version: 1
with: [second-redirector]
cases:
  - name: SC-32 SC-33 the chain through both proxies ends
    program: /usr/bin/curl
    steps:
      - name: app
        to: 198.51.100.7:80
        expect: {action: redirect, destination: "proxy:second-redirector", provider: second-redirector, redirect_state: not-redirected}
      - name: second
        program: /opt/second
        records_of: app
        expect: {action: redirect, destination: "proxy:mine", callout: mine, redirect_state: redirected-by-other}
      - name: mine
        program: /opt/mine
        records_of: second
        expect: {action: permit, destination: 198.51.100.7:80, callout: second-redirector, redirect_state: previously-redirected-by-self, reason: RS-05}
  - name: SC-33 the last redirector is told that it was the last
    steps:
      - {name: app, to: "198.51.100.7:80", expect: {action: redirect}}
      - {name: second, records_of: app, expect: {action: redirect}}
      - {name: mine, records_of: second, expect: {action: permit, callout: mine, redirect_state: redirected-by-self, reason: RS-02}}
  - name: sound
    to: 198.51.100.7:80
    expect: {sound: true}
  - name: SC-31 a proxy that forgets its records gets its own connection again
    with: [forgetful-redirector]
    to: 198.51.100.7:443
    expect: {sound: true}
  - name: without the other
    with: []
    to: 198.51.100.7:80
    expect: {action: redirect, destination: "proxy:mine", provider: none}
`

func TestChainsOfRedirectors(t *testing.T) {
	suite, err := policytest.Parse("chains_test.yaml", []byte(chains))
	require.NoError(t, err)
	require.Equal(t, [][]string{{"second-redirector"}, {"forgetful-redirector"}, nil}, suite.Withs())
	for _, with := range suite.Withs() {
		w := world(t, mine, with...)
		require.NoError(t, suite.Bind(w.Policy, w.Proxies, with...))
		var cases []*policytest.Case
		for i := range suite.Cases {
			if slices.Equal(suite.Cases[i].With, with) {
				cases = append(cases, &suite.Cases[i])
			}
		}
		for _, r := range policytest.Run(t.Context(), w, suite, cases, 1, policytest.NewCoverage(w.Policy)) {
			require.NoError(t, r.Err, r.Case.Name)
			if strings.HasPrefix(r.Case.Name, "SC-31") {
				require.Equal(t, `a loop through proxy "forgetful-redirector": its own connection to 198.51.100.7:443 is redirected to it again`, r.Differences[0].Differences[0].Got)
				continue
			}
			require.Empty(t, r.Differences, r.Case.Name)
		}
	}
}

// A name that is only beside the policy of another case is a mistake.
func TestCasesNameOnlyWhatIsBesideTheirPolicy(t *testing.T) {
	suite, err := policytest.Parse("c_test.yaml", []byte("version: 1\ncases:\n  - {name: a, to: \"192.0.2.1:1\", expect: {action: permit, provider: vpn-kill-switch}}\n"))
	require.NoError(t, err)
	require.EqualError(t, suite.Bind(world(t, mine).Policy, nil), `c_test.yaml:3:69: the policy has no provider "vpn-kill-switch" (it has none)`)
	require.NoError(t, suite.Bind(world(t, mine, "vpn-kill-switch").Policy, nil))
}

const vetoes = `version: 1
provider: {id: guard}
sublayers: [{id: guard, weight: 1}]
callouts: [{id: guard, model: blocker, config: {reason: not on my watch}}]
filters:
  - {name: mail is watched, layer: ALE_AUTH_CONNECT, sublayer: guard, action: callout, callout: guard, conditions: [{field: IP_REMOTE_PORT, value: [25, 80]}]}
`

// Who decided, who was overruled, and by which rule.
func TestWhoStandsWhere(t *testing.T) {
	for _, c := range []struct {
		name, with string
		in         fwps.Incoming
		want       []string
	}{
		{"ARB-06 a callout's block below a hard permit is a veto", vetoes, to("198.51.100.7:25"), []string{
			`this policy, sublayer universal (0x8000): filter 3 "mail" (weight 0x8200000000) says permit, hard: is overruled by the veto of filter 13 of guard (ARB-06)`,
			`guard, sublayer guard (0x0001): filter 13 "mail is watched" (weight 0x8200000000) says block, hard: decides, by a veto (ARB-06)`}},
		{"ARB-07 a filter's block below a hard permit is none", "windows-firewall", from("203.0.113.9:4000", to("192.0.2.1:2222")), []string{
			`this policy, sublayer universal (0x8000): filter 11 "SSH for sure" (weight 0x8200000000) says permit, hard: decides`,
			`windows-firewall, sublayer mpssvc-wf (0x000a): filter 19 "Default Inbound" (weight 0x0) says block, hard: changes nothing: filter 11 of this policy decided hard before (ARB-07)`}},
		{"ARB-05 a soft permit is overruled", "windows-firewall", from("203.0.113.9:4000", to("192.0.2.1:22")), []string{
			`this policy, sublayer universal (0x8000): filter 9 "SSH" (weight 0x8200000000) says permit: is overruled by filter 19 of windows-firewall: it was soft (ARB-05)`,
			`windows-firewall, sublayer mpssvc-wf (0x000a): filter 19 "Default Inbound" (weight 0x0) says block, hard: decides`}},
		{"CR-11 CH-05 the last redirect counts, and who wants to hear of it is asked again", "second-redirector", to("198.51.100.7:81"), []string{
			`second-redirector, sublayer second-redirector (0xa000): filter 13 "everything to the second proxy" (weight 0x8200000000) says redirect: its redirect is replaced by that of filter 2 of this policy (CR-11)`,
			`this policy, sublayer universal (0x8000): filter 2 "also theirs" (weight 0x8200000000) says redirect: its redirect counts; decides`,
			`second-redirector, sublayer second-redirector (0xa000): filter 13 "everything to the second proxy" (weight 0x8200000000) says permit: is asked again, since another one changed the request (SC-73)`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := world(t, mine, c.with)
			r := w.Record()
			_, err := w.Decide(t.Context(), r, c.in)
			require.NoError(t, err)
			var got []string
			for _, a := range r.Asked {
				for _, s := range policytest.Stands(w.Policy, a.In.Layer, a.Steps, a.Deciding) {
					got = append(got, s.String())
				}
			}
			for _, line := range c.want {
				require.Contains(t, got, line)
			}
		})
	}
}

func TestModelsAreListedAndOpen(t *testing.T) {
	for _, m := range policymodel.Models {
		text, err := policymodel.Open("", m.Name)
		require.NoError(t, err)
		require.True(t, policymodel.Known(m.Name))
		file, err := text.Policy()
		require.NoError(t, err)
		for _, f := range file.Policy.Filters {
			require.Equal(t, fwpm.ProviderID(m.Name), f.Provider, "a model owns what it has")
		}
		require.NotContains(t, m.What, "\n")
	}
	require.False(t, policymodel.Known("policy.yaml"))
	_, err := policymodel.Open("", "vpn")
	require.EqualError(t, err, `there is no model "vpn" (vpn-kill-switch, windows-firewall, second-redirector, forgetful-redirector)`)
	_, err = policymodel.Open("", "vpn-kill-switch:x")
	require.EqualError(t, err, `model vpn-kill-switch takes no argument, found "x"`)
	_, err = policymodel.Open("", "windows-firewall:none.txt")
	require.ErrorContains(t, err, "model windows-firewall: the file with its rules: open none.txt: ")
}

func TestModelsOfCalloutsAreStrict(t *testing.T) {
	for config, want := range map[string]string{
		``:                        `to is missing`,
		`{"to": ["nowhere"]}`:     `config: to: expected an address and a port such as 127.0.0.1:7000, found "nowhere"`,
		`{"too": []}`:             `config: unknown field "too"`,
		`{"to": "127.0.0.1:1"}`:   `config: to: found a string, which it cannot be`,
		`{"to": ["127.0.0.1:1"]}`: ``,
	} {
		_, err := policymodel.Callout(policyfile.ModelRedirector, []byte(config))
		if want == "" {
			require.NoError(t, err)
			continue
		}
		require.ErrorContains(t, err, want)
	}
	_, err := policymodel.Callout(policyfile.ModelBlocker, nil)
	require.NoError(t, err)
	_, err = policymodel.Callout("", nil)
	require.EqualError(t, err, `"" is no model of a callout`)
}

// What a model of a redirector does by its state and rights.
func TestRedirector(t *testing.T) {
	hop := func(h redirect.Handle) *redirect.Hop { return &redirect.Hop{Handle: h} }
	for _, c := range []struct {
		name, config string
		records      func(own redirect.Handle) redirect.Records
		want         string
	}{
		{"RS-02 not redirected: it redirects", `{"to": ["127.0.0.1:7"]}`, func(redirect.Handle) redirect.Records { return nil }, policytest.Redirect},
		{"RS-06 by another: it redirects too", `{"to": ["127.0.0.1:7"]}`, func(redirect.Handle) redirect.Records { return redirect.Records{hop(1 << 60)} }, policytest.Redirect},
		{"RS-02 by another that it trusts", `{"to": ["127.0.0.1:7"], "trusts_others": true}`, func(redirect.Handle) redirect.Records { return redirect.Records{hop(1 << 60)} }, policytest.Permit},
		{"RS-02 by itself: not again", `{"to": ["127.0.0.1:7"]}`, func(own redirect.Handle) redirect.Records { return redirect.Records{hop(own)} }, policytest.Permit},
		{"RS-05 by itself, then by another: not again", `{"to": ["127.0.0.1:7"]}`, func(own redirect.Handle) redirect.Records { return redirect.Records{hop(own), hop(1 << 60)} }, policytest.Permit},
		{"SC-34 one that ignores the state redirects again", `{"to": ["127.0.0.1:7"], "ignores_redirect_state": true}`, func(own redirect.Handle) redirect.Records { return redirect.Records{hop(own)} }, policytest.Redirect},
		{"CR-07 no proxy of the family", `{"to": ["[::1]:7"]}`, func(redirect.Handle) redirect.Records { return nil }, policytest.Permit},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := world(t, "version: 1\ncallouts: [{id: r, model: redirector, config: "+c.config+"}]\n"+
				"filters: [{name: all, layer: ALE_CONNECT_REDIRECT_V4, action: callout, callout: r}]\n")
			in := to("198.51.100.7:80")
			in.Records = c.records(w.Handles["r"])
			o, err := w.Decide(t.Context(), w.Record(), in)
			require.NoError(t, err)
			require.Equal(t, c.want, o.Action)
		})
	}
}

// At the layer of a dual-stack socket the proxy's IPv4 address is written as v4-mapped
// (ALE-LAY-16).
func TestRedirectorOfADualStackSocket(t *testing.T) {
	w := world(t, "version: 1", "second-redirector")
	o, err := w.Decide(t.Context(), w.Record(), to("[::ffff:198.51.100.7]:80"))
	require.NoError(t, err)
	require.Equal(t, policytest.Redirect, o.Action)
	require.True(t, o.Destination.Addr().Is4In6(), o.Destination)
}
