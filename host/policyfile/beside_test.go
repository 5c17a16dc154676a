package policyfile

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/fwpm"
)

func parseAs(t *testing.T, name, src string) *File {
	t.Helper()
	f, err := Parse(name, []byte(src))
	require.NoError(t, err)
	return f
}

const besideMine = `version: 1
sublayers: [{id: mine, weight: 5}]
callouts: [{id: redirect, wasm: redirect.wasm}]
proxies: [{id: p, kind: forward, listen: "127.0.0.1:7000"}]
filters:
  - {name: mine, id: 7, layer: ALE_AUTH_CONNECT_V4, sublayer: mine, action: permit}
`

// Each keeps its own; the numbers of the first stay, those of the others follow in
// the order that they had (AMB-37).
func TestPoliciesBesideEachOther(t *testing.T) {
	mine := parseAs(t, "mine.yaml", besideMine)
	theirs := parseAs(t, filepath.Join("vpn", "kill switch.yaml"), `version: 1
sublayers: [{id: theirs, weight: 9}]
callouts: [{id: other, wasm: other.wasm}, {id: built, go: src}]
proxies: [{id: q, kind: socks5, address: "192.0.2.1:1080", credentials: {file: secret}}]
filters:
  - {name: last, id: 9, layer: ALE_AUTH_CONNECT_V4, sublayer: theirs, action: block}
  - name: first
    layer: ALE_AUTH_CONNECT_V4
    sublayer: theirs
    action: permit
    conditions: [{field: IP_REMOTE_PORT, value: 443}]
`)
	f, err := Beside(mine, theirs)
	require.NoError(t, err)
	require.NoError(t, host.New(host.Options{}).Update(func(p *fwpm.Policy) error { *p = f.Policy; return nil }))
	require.Equal(t, "7 mine: ALE_AUTH_CONNECT_V4 permit in mine\n"+
		"8 first: ALE_AUTH_CONNECT_V4 permit in theirs of kill-switch\n    IP_REMOTE_PORT equal 443\n"+
		"9 last: ALE_AUTH_CONNECT_V4 block in theirs of kill-switch\n", filtersOf(f))
	require.Equal(t, []fwpm.Provider{{ID: "kill-switch"}}, f.Policy.Providers)
	require.Equal(t, filepath.Join("vpn", "other.wasm"), f.Callouts[1].Wasm)
	require.Equal(t, filepath.Join("vpn", "src"), f.Callouts[2].GoPackage)
	require.Equal(t, filepath.Join("vpn", "secret"), f.Proxies[1].Credentials.File)
	kill := filepath.Join("vpn", "kill switch.yaml")
	require.Equal(t, "mine.yaml:6", f.Place(7))
	require.Equal(t, kill+":7", f.Place(8))
	require.Equal(t, kill+":6", f.Place(9))
	require.Equal(t, kill+":11:49", f.ConditionPlace(8, 0))
	require.EqualError(t, f.At("callout", "other", "wasm", errors.New("bad")), kill+":3:30: bad")
	require.EqualError(t, f.At("callout", "redirect", "wasm", errors.New("bad")), "mine.yaml:3:33: bad")
	require.Empty(t, mine.Policy.Providers, "the files themselves are as they were")
	require.Len(t, mine.Callouts, 1)
}

// What is beside others already may have more beside it: each place is in the file that it
// was written in, and what one file has modifies no other.
func TestThreeBesideEachOther(t *testing.T) {
	abs := filepath.Join(t.TempDir(), "abs.wasm")
	file := func(name string) *File {
		return parseAs(t, name+".yaml", `version: 1
callouts: [{id: `+name+`, wasm: "`+filepath.ToSlash(abs)+`"}, {id: `+name+`-model, model: blocker}]
provider_contexts: [{id: `+name+`, data: "`+name+`"}]
proxies: [{id: `+name+`, kind: forward}]
invariants: [{name: `+name+`, must: [permit]}]
filters:
  - {name: `+name+`, id: 9, layer: ALE_AUTH_CONNECT_V4, action: callout, callout: `+name+`, provider_context: `+name+`}
`)
	}
	a, b, c := file("a"), file("b"), file(strings.Repeat("c", 50))
	two, err := Beside(a, b)
	require.NoError(t, err)
	f, err := Beside(two, c)
	require.NoError(t, err)
	require.Equal(t, []fwpm.Provider{{ID: "b"}, {ID: fwpm.ProviderID(strings.Repeat("c", 48))}}, f.Policy.Providers)
	require.Equal(t, fwpm.ProviderID("b"), f.Policy.Callouts[2].Provider)
	require.Len(t, f.Policy.ProviderContexts, 3)
	require.Len(t, f.Proxies, 3, "of proxies anywhere none is where another is")
	var names []string
	for _, i := range f.Invariants {
		names = append(names, i.Name)
	}
	require.Equal(t, []string{"a", "b", strings.Repeat("c", 50)}, names)
	for _, i := range []int{0, 2, 4} {
		require.Equal(t, filepath.ToSlash(abs), filepath.ToSlash(f.Callouts[i].Wasm))
		require.Empty(t, f.Callouts[i+1].Wasm)
	}
	require.Equal(t, "a.yaml:7", f.Place(9))
	require.Equal(t, "b.yaml:7", f.Place(10))
	require.Equal(t, c.name+":7", f.Place(11))

	_, err = Beside(two, parseAs(t, "d.yaml", "version: 1\nprovider_contexts: [{id: b, data: d}]"))
	require.EqualError(t, err, `d.yaml:2:21: provider context "b" stands in b.yaml:3 too: of two policies beside each other, one has to call it something else`)

	f.Policy.Filters[0].Name, f.Callouts[0].Wasm, f.Invariants[0].Name = "other", "other", "other"
	require.Equal(t, "a", two.Policy.Filters[0].Name)
	require.Equal(t, "a", two.Invariants[0].Name)
	require.NotEqual(t, "other", two.Callouts[0].Wasm)
	require.Empty(t, b.Policy.Callouts[0].Provider)
}

func filtersOf(f *File) string {
	only := &File{Policy: fwpm.Policy{Filters: f.Policy.Filters}}
	return show(only)
}

func TestWhatBothHaveIsAMistake(t *testing.T) {
	mine := parseAs(t, "mine.yaml", besideMine)
	for name, c := range map[string]struct{ theirs, want string }{
		"sublayer":        {"sublayers: [{id: mine, weight: 1}]", `theirs.yaml:2:13: sublayer "mine" stands in mine.yaml:2 too: of two policies beside each other, one has to call it something else`},
		"callout":         {"callouts: [{id: redirect, model: blocker}]", `theirs.yaml:2:12: callout "redirect" stands in mine.yaml:3 too`},
		"proxy":           {"proxies: [{id: p, kind: forward}]", `theirs.yaml:2:11: proxy "p" stands in mine.yaml:4 too`},
		"proxy's address": {`proxies: [{id: q, kind: forward, listen: "127.0.0.1:7000"}]`, `theirs.yaml:2:11: proxy "q" is where proxy "p" of mine.yaml is too, at 127.0.0.1:7000`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Beside(mine, parseAs(t, "theirs.yaml", "version: 1\n"+c.theirs))
			require.ErrorContains(t, err, c.want)
			var es Errors
			require.ErrorAs(t, err, &es)
			require.Len(t, es, 1)
		})
	}
	vpn := parseAs(t, "vpn.yaml", "version: 1\nprovider: {id: vpn}")
	_, err := Beside(mine, vpn, vpn)
	require.ErrorContains(t, err, `vpn.yaml:2:11: provider "vpn" stands in vpn.yaml:2 too`)
}

// Names that are made of files' names do not clash.
func TestFilesOfOneName(t *testing.T) {
	file := func(name, sublayer string) *File {
		return parseAs(t, filepath.FromSlash(name), "version: 1\nsublayers: [{id: "+sublayer+", weight: 1}]")
	}
	f, err := Beside(parseAs(t, "policy.yaml", besideMine), file("a/b.yaml", "x"), file("c/b.yaml", "y"), file("dns-guard/policy.yaml", "z"), file("\xff.yaml", "q"))
	require.NoError(t, err)
	require.Equal(t, []fwpm.Provider{{ID: "b"}, {ID: "b-2"}, {ID: "dns-guard"}, {ID: "other"}}, f.Policy.Providers)
}

// A path is chosen by who makes the file, and is told in every line about a filter: it
// writes no line of its own there, and moves no cursor.
func TestPathsBreakNoLine(t *testing.T) {
	const path, quoted = "a\ncalloutd: forged \x1b[2J.yaml", `"a\ncalloutd: forged \x1b[2J.yaml"`
	f := parseAs(t, path, "version: 1\ncallouts: [{id: c, model: blocker}]\ninvariants: [{name: all, must: [permit]}]\nfilters:\n"+
		"  - {name: mail, layer: ALE_AUTH_CONNECT_V4, action: block, conditions: [{field: IP_REMOTE_PORT, value: 25}]}\n")
	require.Equal(t, quoted+":5", f.Place(1))
	require.Equal(t, quoted+":5:5", f.Entry(1))
	require.Equal(t, quoted+":5:105", f.ConditionPlace(1, 0))
	require.Equal(t, quoted+":3", f.Invariants[0].Place)
	require.EqualError(t, f.At("callout", "c", "", errors.New("bad")), quoted+":2:12: bad")
	require.EqualError(t, f.At("callout", "none", "", errors.New("bad")), quoted+`: callout "none": bad`)
}
