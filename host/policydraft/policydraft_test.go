package policydraft_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/calloutd/calloutd/host/arbitrate"
	"github.com/calloutd/calloutd/host/flight"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/policydraft"
	"github.com/calloutd/calloutd/host/policyfile"
	"github.com/calloutd/calloutd/host/policytest"
)

func to(program string, addrs ...string) (out []*flight.Entry) {
	for _, a := range addrs {
		out = append(out, &flight.Entry{Program: program, Protocol: 6, Remote: netip.MustParseAddrPort(a)})
	}
	return out
}

func TestConnectionsToTheSameAddressesAreOneFilter(t *testing.T) {
	fs := policydraft.Filters(append(to("/bin/a", "192.0.2.1:443", "192.0.2.1:80", "192.0.2.1:443", "198.51.100.1:22"), to("/bin/b", "192.0.2.1:443")...))
	require.Len(t, fs, 3)
	require.Equal(t, "a to 22 (tcp)", fs[0].Name())
	require.Equal(t, []uint16{80, 443}, fs[1].Ports)
	require.Equal(t, "b to 443 (tcp)", fs[2].Name())
}

func TestManyAddressesAreTheirNetworks(t *testing.T) {
	var seen []*flight.Entry
	for i := range 9 {
		seen = append(seen, to("/bin/a", fmt.Sprintf("192.0.2.%d:443", i+1), fmt.Sprintf("[2001:db8::%d]:443", i+1))...)
	}
	fs := policydraft.Filters(seen)
	require.Len(t, fs, 1)
	require.Equal(t, "[192.0.2.0/24 2001:db8::/64]", fmt.Sprint(fs[0].Networks))
}

func TestADraftIsAPolicyAndItsCasesAreCases(t *testing.T) {
	seen := append(to("/opt/a \"b\"", "192.0.2.1:443", "[2001:db8::1]:443"),
		&flight.Entry{Program: "/bin/b", Protocol: 17, UserKnown: true, Inbound: true, Local: netip.MustParseAddrPort("127.0.0.1:53"), Remote: netip.MustParseAddrPort("127.0.0.1:9")},
		&flight.Entry{Protocol: 132, Remote: netip.MustParseAddrPort("192.0.2.1:9")})
	src := policydraft.Policy("make\ntest", policydraft.Filters(seen))
	require.True(t, strings.HasPrefix(string(src), "# Drafted from what was seen of: make test\n"))
	f, err := policyfile.Parse("p.yaml", src)
	require.NoError(t, err, string(src))
	require.Len(t, f.Policy.Filters, 8)
	s, err := policytest.Parse("p_test.yaml", policydraft.Cases("make", "p.yaml", seen, true))
	require.NoError(t, err)
	require.Len(t, s.Cases, 6)
}

// What is permitted of a program that nobody knew is not permitted of all the others.
func TestAnUnknownProgramIsNotEveryProgram(t *testing.T) {
	seen := to("", "192.0.2.1:443")
	fs := policydraft.Filters(seen)
	require.Equal(t, "unknown programs to 443 (tcp)", fs[0].Name())
	f, err := policyfile.Parse("p.yaml", policydraft.Policy("make", fs))
	require.NoError(t, err)
	p, err := arbitrate.Compile(&f.Policy, arbitrate.Options{})
	require.NoError(t, err)
	s, err := policytest.Parse("p_test.yaml", policydraft.Cases("make", "p.yaml", seen, false))
	require.NoError(t, err)
	for program, want := range map[string]fwp.Action{s.Cases[0].Steps[0].Incoming.AppID: fwp.ActionPermit, "/bin/a": fwp.ActionBlock} {
		var d fwps.Decision
		p.Classify(t.Context(), &fwps.Incoming{Layer: fwpm.LayerALEAuthConnectV4, AppID: program, Protocol: 6, Remote: seen[0].Remote}, &d)
		require.Equal(t, want, d.Action, "%q", program)
	}
}

// Of whom the file does not say who it was, a case says that too: it is decided by
// filters for users otherwise.
func TestACaseSaysWhoItWas(t *testing.T) {
	seen := to("/bin/a", "192.0.2.1:443", "192.0.2.1:80")
	seen[1].User, seen[1].UserKnown = 1000, true
	src := string(policydraft.Cases("make", "p.yaml", seen, false))
	require.Contains(t, src, `- ["/bin/a", unknown, "192.0.2.1:443", tcp, permit]`)
	require.Contains(t, src, `- ["/bin/a", 1000, "192.0.2.1:80", tcp, permit]`)
}

// What was seen of very many addresses takes time in proportion.
func TestVeryMuchThatWasSeen(t *testing.T) {
	var seen []*flight.Entry
	for i := range 100_000 {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		seen = append(seen, &flight.Entry{Program: "/bin/a", Protocol: 6, Remote: netip.AddrPortFrom(a, 443)},
			&flight.Entry{Program: "/bin/b", Protocol: 6, Remote: netip.AddrPortFrom(netip.AddrFrom4([4]byte{11, byte(i >> 8), byte(i), byte(i >> 16)}), 443)})
	}
	begin := time.Now()
	fs := policydraft.Filters(seen)
	require.Len(t, fs[0].Networks, 391)
	require.Len(t, fs[1].Networks, 1<<16)
	require.Equal(t, 200_000, strings.Count(string(policydraft.Cases("make", "p.yaml", append(seen, seen...), false)), "permit]"))
	require.Less(t, time.Since(begin), time.Minute) // Where each is compared with all it takes hours.
}

const existing = `# Who wrote this has reasons.
version: 1

filters:
  # mail is for the mail program
  - name: no mail   # at all
    layer: ALE_AUTH_CONNECT
    action: block
    conditions: [{field: IP_REMOTE_PORT, value: 25}]
  # and that is all

# proxies come last
proxies:
  - {id: a, kind: inspect}
`

func TestExtendAddsToTheEndOfTheFiltersAndChangesNothingElse(t *testing.T) {
	fs := policydraft.Filters(to("/bin/a", "192.0.2.1:443"))
	got, err := policydraft.Extend([]byte(existing), fs)
	require.NoError(t, err)
	want := strings.Replace(existing, "  # and that is all\n", `  # and that is all
  - name: "a to 443 (tcp)"
    layer: ALE_AUTH_CONNECT
    action: permit
    conditions:
      - {field: ALE_APP_ID, value: "/bin/a"}
      - {field: IP_PROTOCOL, value: tcp}
      - {field: IP_REMOTE_PORT, value: 443}
      - {field: IP_REMOTE_ADDRESS, value: "192.0.2.1"}
`, 1)
	require.Equal(t, want, string(got))

	got, err = policydraft.Extend([]byte("version: 1\nfilters:\n- {name: a, layer: ALE_AUTH_CONNECT, action: block}"), fs)
	require.NoError(t, err)
	_, err = policyfile.Parse("p.yaml", got)
	require.NoError(t, err, string(got))

	got, err = policydraft.Extend([]byte("version: 1 # nothing yet"), fs)
	require.NoError(t, err)
	_, err = policyfile.Parse("p.yaml", got)
	require.NoError(t, err, string(got))
}

func TestWhatCannotBeExtended(t *testing.T) {
	fs := policydraft.Filters(to("/bin/a", "192.0.2.1:443"))
	for src, want := range map[string]string{
		"version: 1\nfilters:\n  - {name: a, layer: ALE_AUTH_CONNECT, action: block}\n...\n":             "they do not end where its text seems to say",
		"version: 1\nfilters:\n  - {name: a, layer: ALE_AUTH_CONNECT, action: block}\n---\nversion: 1\n": "they do not end where its text seems to say",
		"version: 1\nfilters: [{name: a, layer: ALE_AUTH_CONNECT, action: block}]\n":                     "filters: [...] on one line cannot be extended",
		"- a\n":  "it is no policy",
		"a: [\n": "",
	} {
		_, err := policydraft.Extend([]byte(src), fs)
		require.ErrorContains(t, err, want)
	}
}

// Whatever was seen, the draft is a policy that reads.
func TestRandomDraftsAreRight(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var seen []*flight.Entry
		for range rapid.IntRange(1, 20).Draw(t, "n") {
			b := rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "addr")
			a, _ := netip.AddrFromSlice(b)
			seen = append(seen, &flight.Entry{Program: rapid.StringMatching(`/?[a-zC "#':{}*/\\-]{1,8}`).Draw(t, "program"), Protocol: rapid.Byte().Draw(t, "protocol"),
				Remote: netip.AddrPortFrom(a, rapid.Uint16Min(1).Draw(t, "port"))})
		}
		src := policydraft.Policy(rapid.String().Draw(t, "of"), policydraft.Filters(seen))
		_, err := policyfile.Parse("p.yaml", src)
		require.NoError(t, err, string(src))
	})
}
