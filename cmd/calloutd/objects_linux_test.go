package main

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// EVENTS.md names every key that commands print with --json.
func TestObjectsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("EVENTS.md")
	require.NoError(t, err)
	policy := filepath.Join(t.TempDir(), "policy.yaml")
	require.NoError(t, os.WriteFile(policy, []byte("version: 1\nfilters:\n- {name: a, layer: ALE_AUTH_CONNECT, action: block, conditions: [{field: IP_REMOTE_PORT, value: 25}]}\n"), 0o600))
	require.NoError(t, os.WriteFile(casesBeside(policy), []byte("version: 1\ncases:\n- {name: fails, to: 192.0.2.7:80, expect: {action: block}}\n"), 0o600))
	recorded := flightOf(t, 3)
	for _, args := range [][]string{
		{"bench", quickstart, "--time", "20ms"}, {"check", "EVENTS.md"}, {"diff", policy, quickstart}, {"doctor"}, {"fuzz", "testdata/faults", "--out", "-", "--limit", "5000"},
		{"inspect", "../../sdk/wat/split.wasm"}, {"inspect", "../../sdk/wat/split.wasm", "--config", "proxy 8443 77"}, {"models"}, {"replay", recorded}, {"replay", recorded, "-p", policy},
		{"spec", "CR-03"}, {"test", policy}, {"test", quickstart}, {"version"}, {"why", "192.0.2.7:25", "-p", policy}, {"why", "192.0.2.7:80", "-p", policy},
	} {
		lines := json.NewDecoder(strings.NewReader(calloutd(t, append(args, "--json")...).stdout))
		for n := 0; ; n++ {
			var object map[string]any
			err := lines.Decode(&object)
			if errors.Is(err, io.EOF) {
				require.NotZero(t, n, "%s printed nothing", args)
				break
			}
			require.NoError(t, err, "%s", args)
			for key, v := range object {
				require.Contains(t, string(text), "`"+key+"`", "%s", args)
				parts, _ := v.([]any)
				if len(parts) == 0 {
					continue
				}
				if first, ok := parts[0].(map[string]any); ok {
					for key := range first {
						require.Contains(t, string(text), "`"+key+"`", "%s", args)
					}
				}
			}
		}
	}
}
