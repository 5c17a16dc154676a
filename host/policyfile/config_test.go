package policyfile

import (
	"net/netip"
	"os/user"
	"testing"

	"github.com/stretchr/testify/require"
)

func parse(t *testing.T, text string) *File {
	t.Helper()
	f, err := Parse("policy.yaml", []byte(text))
	require.NoError(t, err)
	return f
}

func TestConfigIsJSON(t *testing.T) {
	f := parse(t, `version: 1
proxies: [{id: fwd, kind: forward}]
callouts:
  - id: a
    wasm: x
    config:
      numbers: [1, -2, 0x10, 2.5, 18446744073709551615]
      truth: [true, yes, null]
      text: ["", 2020-01-01, "é\n"]
      whole: ["${pid}", "${proxy:fwd}"]
      inside: "http://${proxy:fwd}/${pid}/$${pid}/$5/$$"
  - {id: none, wasm: x}
`)
	proxies := map[string]netip.AddrPort{"fwd": netip.MustParseAddrPort("127.0.0.1:8080")}
	got, err := f.Callouts[0].ConfigJSON(proxies, 42)
	require.NoError(t, err)
	require.JSONEq(t, `{
		"numbers": [1, -2, 16, 2.5, 18446744073709551615],
		"truth": [true, "yes", null],
		"text": ["", "2020-01-01", "é\n"],
		"whole": [42, "127.0.0.1:8080"],
		"inside": "http://127.0.0.1:8080/42/${pid}/$5/$$"
	}`, string(got))
	require.Contains(t, string(got), "18446744073709551615", "no float in between")

	got, err = f.Callouts[1].ConfigJSON(nil, 42)
	require.NoError(t, err)
	require.Nil(t, got)

	_, err = f.Callouts[0].ConfigJSON(nil, 42)
	require.EqualError(t, err, "config names ${proxy:fwd}, which is not running")
}

// The names of users are those of the machine that reads the file.
func TestUserByName(t *testing.T) {
	u, err := user.Current()
	require.NoError(t, err)
	byName := parse(t, "version: 1\nfilters: [{name: x, layer: ALE_AUTH_CONNECT_V4, action: block, conditions: [{field: ALE_USER_ID, value: \""+u.Username+"\"}]}]")
	byNumber := parse(t, "version: 1\nfilters: [{name: x, layer: ALE_AUTH_CONNECT_V4, action: block, conditions: [{field: ALE_USER_ID, value: "+u.Uid+"}]}]")
	require.Equal(t, byNumber.Policy, byName.Policy)
}
