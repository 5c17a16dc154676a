package policymodel_test

import (
	"net/netip"
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
