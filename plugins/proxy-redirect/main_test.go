package main

import (
	"bytes"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/sdk/go/callout"
	"github.com/calloutd/calloutd/sdk/go/sockaddr"
)

const good = `{"rules":[{"destinations":["198.51.100.0/24"],"ports":["80","8000-8999"],"proxy":"127.0.0.1:9","proxy_pid":7}],"otherwise":"continue"}`

func TestClassify(t *testing.T) {
	p := new(policy)
	require.NoError(t, p.Configure([]byte(good)))
	for name, c := range map[string]struct {
		to    string
		state callout.State
		kind  string
	}{
		"redirects":            {"198.51.100.7:80", callout.NotRedirected, "redirect"},
		"port range":           {"198.51.100.7:8500", callout.NotRedirected, "redirect"},
		"v4-mapped":            {"[::ffff:198.51.100.7]:80", callout.NotRedirected, "redirect"},
		"by another redirects": {"198.51.100.7:80", callout.RedirectedByOther, "redirect"},
		"by self passes":       {"198.51.100.7:80", callout.RedirectedBySelf, "permit"},
		"ping-pong passes":     {"198.51.100.7:80", callout.PreviouslyRedirectedBySelf, "permit"},
		"other port":           {"198.51.100.7:81", callout.NotRedirected, "continue"},
		"other network":        {"203.0.113.7:80", callout.NotRedirected, "continue"},
	} {
		t.Run(name, func(t *testing.T) {
			v := p.Classify(&callout.Call{Remote: netip.MustParseAddrPort(c.to), State: c.state})
			switch c.kind {
			case "permit":
				require.Equal(t, callout.Permit().WithReason("the proxy's own connection"), v)
			case "continue":
				require.Equal(t, callout.Continue(), v)
			default:
				require.NotEqual(t, callout.Continue(), v)
				require.NotEqual(t, callout.Permit(), v)
			}
		})
	}
}

// The proxy learns on which link an address is that means something on one only.
func TestContextHasTheLink(t *testing.T) {
	p := new(policy)
	require.NoError(t, p.Configure([]byte(`{"rules":[{"destinations":["::/0"],"proxy":"[::1]:9","proxy_pid":7}]}`)))
	for to, want := range map[string]string{"[fe80::9]:80": "[fe80::9%3]:80", "[ff02::1]:80": "[ff02::1%3]:80", "[2001:db8::9]:80": "[2001:db8::9]:80"} {
		p.Classify(&callout.Call{Remote: netip.MustParseAddrPort(to), Interface: 3})
		for _, b := range [][]byte{p.context, p.record[4:]} {
			got, err := sockaddr.Parse(b)
			require.NoError(t, err)
			require.Equal(t, want, got.String())
		}
	}
	p.Classify(&callout.Call{Remote: netip.MustParseAddrPort("[fe80::9]:80")})
	got, err := sockaddr.Parse(p.context)
	require.NoError(t, err)
	require.Equal(t, "[fe80::9]:80", got.String(), "the host does not know")
}

func TestConfigureRefuses(t *testing.T) {
	for text, want := range map[string]string{
		``:                      "there is none: expected rules",
		`{"ruls":[]}`:           `the configuration has no key "ruls"`,
		`{"otherwise":"maybe"}`: "otherwise:",
		`{"rules":[{"destinations":["x"],"proxy":"127.0.0.1:9","proxy_pid":7}]}`:                         "rules[0].destinations[0]:",
		`{"rules":[{"destinations":["0.0.0.0/0"],"proxy":"127.0.0.1:9"}]}`:                               "rules[0].proxy_pid:",
		`{"rules":[{"destinations":["0.0.0.0/0"],"ports":["9-8"],"proxy":"127.0.0.1:9","proxy_pid":7}]}`: "rules[0].ports[0]:",
		`{"rules":[{"destinations":["0.0.0.0/0"],"proxy_pid":7}]}`:                                       "rules[0].proxy:",
	} {
		require.ErrorContains(t, new(policy).Configure([]byte(text)), want)
	}
}

// The committed module is what this source makes.
func TestCommittedModule(t *testing.T) {
	out := filepath.Join(t.TempDir(), "x.wasm")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-buildmode=c-shared", "-o", out, ".")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=")
	msg, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", msg)
	built, err := os.ReadFile(out)
	require.NoError(t, err)
	committed, err := os.ReadFile("proxy-redirect.wasm")
	require.NoError(t, err)
	if !bytes.Equal(built, committed) {
		t.Error("proxy-redirect.wasm is not what its source makes with this Go: run go generate")
	}
}
