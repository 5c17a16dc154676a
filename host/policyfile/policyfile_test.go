package policyfile

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
)

// stories runs f on the pairs of files of each archive: a policy, and what is
// wanted of it. -update writes what came out.
func stories(t *testing.T, dir string, f func(t *testing.T, policy []byte) string) {
	files, err := filepath.Glob(filepath.Join("testdata", dir, "*.txtar"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		ar, err := txtar.ParseFile(file)
		require.NoError(t, err)
		require.Zero(t, len(ar.Files)%2, "%s: a policy without want", file)
		for i := 0; i < len(ar.Files); i += 2 {
			policy, want := ar.Files[i], &ar.Files[i+1]
			require.Equal(t, "want", want.Name, file)
			t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar")+"/"+policy.Name, func(t *testing.T) {
				got := f(t, policy.Data)
				if *update {
					want.Data = []byte(got)
					return
				}
				require.Equal(t, string(want.Data), got)
			})
		}
		if *update {
			require.NoError(t, os.WriteFile(file, txtar.Format(ar), 0o644))
		}
	}
}

func TestMistakes(t *testing.T) {
	stories(t, "mistakes", func(t *testing.T, policy []byte) string {
		_, err := Parse("policy.yaml", policy)
		var es Errors
		require.ErrorAs(t, err, &es)
		for _, p := range es {
			inside(t, policy, p)
		}
		return strings.ReplaceAll(err.Error(), "policy.yaml:", "") + "\n"
	})
}

func TestTenMistakes(t *testing.T) {
	ar, err := txtar.ParseFile("testdata/mistakes/ten.txtar")
	require.NoError(t, err)
	_, err = Parse("policy.yaml", ar.Files[0].Data)
	var es Errors
	require.ErrorAs(t, err, &es)
	require.Len(t, es, 10)
	lines := map[int]bool{}
	for _, p := range es {
		lines[p.Line] = true
	}
	require.Len(t, lines, 10, "each mistake has its own line")
}

// inside checks that a mistake has a place in the file.
func inside(t testing.TB, src []byte, p Problem) {
	t.Helper()
	lines := strings.Split(string(src), "\n")
	require.Positive(t, p.Line, "%v", p)
	require.LessOrEqual(t, p.Line, len(lines), "%v", p)
	require.Positive(t, p.Column, "%v", p)
	require.LessOrEqual(t, p.Column, len([]rune(lines[p.Line-1]))+1, "%v", p) // At the end something may be missing.
	require.NotEmpty(t, p.Message)
	require.NotContains(t, p.Error(), "\n")
}

func TestValid(t *testing.T) {
	schema := compiledSchema(t)
	stories(t, "valid", func(t *testing.T, policy []byte) string {
		require.NoError(t, schema.Validate(asJSON(t, policy)))
		f, err := Parse("policy.yaml", policy)
		require.NoError(t, err)
		require.NoError(t, host.New(host.Options{}).Update(func(p *fwpm.Policy) error { *p = f.Policy; return nil }))
		return show(f)
	})
}

func show(f *File) string {
	var b strings.Builder
	for _, x := range f.Policy.Filters {
		fmt.Fprintf(&b, "%d %s: %s %s", x.ID, x.Name, x.Layer, x.Action)
		for _, part := range []struct{ before, text string }{{" ", string(x.Callout)}, {" in ", string(x.Sublayer)}, {" of ", string(x.Provider)}, {" with ", string(x.ProviderContext)}} {
			if part.text != "" {
				b.WriteString(part.before + part.text)
			}
		}
		if x.Weight != (fwpm.Weight{}) {
			fmt.Fprintf(&b, ", weight %s %d", x.Weight.Type, x.Weight.Value)
		}
		if x.ClearActionRight {
			b.WriteString(", hard")
		}
		if x.PermitIfCalloutUnregistered {
			b.WriteString(", permit if unregistered")
		}
		b.WriteString("\n")
		for _, c := range x.Conditions {
			fmt.Fprintf(&b, "    %s %s %s\n", c.Field, c.Match, showValue(c.Field, c.Value))
		}
	}
	for _, c := range f.Callouts {
		fmt.Fprintf(&b, "callout %s: wasm %q go %q continue on failure: %v, max failures %d, capabilities %#x, limits %+v\n", c.ID, c.Wasm, c.GoPackage, c.ContinueOnFailure, c.MaxFailures, c.Capabilities, c.Limits)
		for i, s := range c.Sets {
			fmt.Fprintf(&b, "    set %d: %v\n", i, s)
		}
		for i, t := range c.Tables {
			fmt.Fprintf(&b, "    table %d: %v\n", i, t)
		}
	}
	for _, c := range f.Policy.Callouts {
		if c.ApplicableLayer != 0 {
			fmt.Fprintf(&b, "callout %s: only at %s\n", c.ID, c.ApplicableLayer)
		}
	}
	for _, c := range f.Policy.ProviderContexts {
		fmt.Fprintf(&b, "provider context %s of %q: %q %q\n", c.ID, c.Provider, c.Name, c.Data)
	}
	for _, p := range f.Proxies {
		if p.Kind.Foreign() {
			fmt.Fprintf(&b, "proxy %s: %s of others at %s, credentials %q %q\n", p.ID, p.Kind, p.Address, p.Credentials.File, p.Credentials.Env)
			continue
		}
		fmt.Fprintf(&b, "proxy %s: %s at %s", p.ID, p.Kind, p.Listen)
		if p.Address.IsValid() {
			fmt.Fprintf(&b, " asks %s", p.Address)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func showValue(c fwpm.ConditionID, v fwp.Value) string {
	if c.IsAddress() && v.Type == fwp.Uint32 {
		return netip.AddrFrom4([4]byte{byte(v.Uint >> 24), byte(v.Uint >> 16), byte(v.Uint >> 8), byte(v.Uint)}).String()
	}
	if v.Type == fwp.RangeType {
		return showValue(c, v.Range.Low) + "-" + showValue(c, v.Range.High)
	}
	return v.String()
}

// However its address is written, a connection that goes to a proxy is known to.
func TestAProxyAtAMappedAddressIsTheOneOfIPv4(t *testing.T) {
	const src = "version: 1\nproxies:\n  - {id: a, kind: inspect, listen: \"[::ffff:127.0.0.1]:8080\"}\n  - {id: b, kind: socks5, address: \"[::ffff:127.0.0.1]:8081\"}\n"
	f, err := Parse("p.yaml", []byte(src))
	require.NoError(t, err)
	require.Equal(t, netip.MustParseAddrPort("127.0.0.1:8080"), f.Proxies[0].Listen)
	require.Equal(t, netip.MustParseAddrPort("127.0.0.1:8081"), f.Proxies[1].Address)
}

// Of two proxies at one address a connection would go to one, with the credentials of
// the other.
func TestTwoProxiesAreNotAtOneAddress(t *testing.T) {
	const src = "version: 1\nproxies:\n  - {id: a, kind: socks5, address: 127.0.0.1:1080, credentials: {env: A}}\n  - {id: b, kind: socks5, address: \"[::ffff:127.0.0.1]:1080\"}\n"
	_, err := Parse("p.yaml", []byte(src))
	require.EqualError(t, err, `p.yaml:4:5: proxy "b" is where proxy "a" is too, at 127.0.0.1:1080`)
}
