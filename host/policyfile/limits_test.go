package policyfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/fwpm"
)

// What a file may cost is bounded, whatever is in it.
func TestLimits(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"size":        {strings.Repeat("#", MaxSize+1), "1:1: the file is larger than 1048576 bytes"},
		"flow depth":  {"version: " + strings.Repeat("[", MaxSize-100), "1:42: YAML: while increasing flow level: exceeded max depth of 32"},
		"block depth": {strings.Repeat("- ", MaxSize/2), "1:65: YAML: while increasing indent level: exceeded max depth of 32"},
		"alias bomb":  {aliasBomb(), "1:7: anchor &a0: a policy has no anchors and aliases; write the value where it is used"},
		"alias cycle": {"version: 1\nfilters: &a [*a]", "2:14: alias *a: a policy has no anchors and aliases; write the value where it is used"},
		"mistakes":    {"version: 1\n" + strings.Repeat("? a\n", 1000), "102:3: there are more mistakes than are listed"},
		"long word":   {"version: 1\n" + strings.Repeat("a", 1000) + ": 1", "2:1: unknown key \"" + strings.Repeat("a", 60) + "...\""},
		"UTF-16":      {"\xff\xfev\x00", "1:1: UTF-16: expected UTF-8 text"},
		"UTF-8 mark":  {"\ufeffversion: 2", "1:10: version: expected 1, found the number 2"},
		"second mark": {"\ufeff\ufeffversion: 1", "1:1: control character U+FEFF: expected UTF-8 text"},
		"control":     {"version: 1\n# \x1b[0m", "2:3: control character U+001B: expected UTF-8 text"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("p", []byte(c.text))
			require.ErrorContains(t, err, "p:"+c.want)
			var es Errors
			require.ErrorAs(t, err, &es)
			require.LessOrEqual(t, len(es), MaxProblems+1)
		})
	}
}

func aliasBomb() string {
	var b strings.Builder
	b.WriteString("a0:   &a0 [x]\n")
	for i := range 50 {
		fmt.Fprintf(&b, "a%d: &a%d [*a%d, *a%d]\n", i+1, i+1, i, i)
	}
	return b.String()
}

func TestLoadReadsNoMoreThanTheLimit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "big.yaml")
	f, err := os.Create(path)
	require.NoError(t, err)
	require.NoError(t, f.Truncate(1<<40)) // A file without end, and without blocks.
	require.NoError(t, f.Close())
	_, err = Load(path)
	require.ErrorContains(t, err, "larger than")
	_, err = Load(filepath.Join(t.TempDir(), "none.yaml"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

// What goes wrong with an object later is reported at its place in the file.
func TestPlaces(t *testing.T) {
	f := parse(t, `version: 1
proxies:
  - {id: fwd, kind: forward, listen: "127.0.0.1:1"}
callouts:
  - id: a
    wasm: x.wasm
filters:
  - {name: x, layer: ALE_AUTH_CONNECT, action: block}
`)
	bad := errors.New("bad")
	require.EqualError(t, f.At("callout", "a", "wasm", bad), "policy.yaml:6:11: bad")
	require.EqualError(t, f.At("callout", "a", "config", bad), "policy.yaml:5:5: bad")
	require.EqualError(t, f.At("proxy", "fwd", "listen", bad), "policy.yaml:3:38: bad")
	require.EqualError(t, f.At("callout", "b", "", bad), `policy.yaml: callout "b": bad`)
	require.Equal(t, "policy.yaml:8", f.Place(2))
	require.Empty(t, f.Place(fwpm.FilterID(3)))
	require.Equal(t, "policy.yaml:8:5", f.Entry(1))
	require.Equal(t, f.Entry(1), f.Entry(2), "one for both families")
	require.Empty(t, f.Entry(3))
}

func TestNearest(t *testing.T) {
	words := []string{"block", "permit", "IP_REMOTE_PORT", "id", "proxy-redirect"}
	for s, want := range map[string]string{
		"blok": "block", "PERMIT": "permit", "FWP_ACTION_BLOCK": "block", "FWPM_CONDITION_IP_REMOTE_PORT": "IP_REMOTE_PORT",
		"proxy_redirect": "proxy-redirect", "go": "", "": "", "something else": "",
	} {
		require.Equal(t, want, nearest(s, words), s)
	}
}
