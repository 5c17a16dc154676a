package main

import (
	"encoding/json"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/cmd/calloutd/internal/control"
	"github.com/calloutd/calloutd/host/enforce"
)

// part is what a script printed between two lines of its own.
func part(t *testing.T, out, from, to string) string {
	t.Helper()
	_, out, ok := strings.Cut(out, from+"\n")
	require.True(t, ok, "%s", from)
	out, _, ok = strings.Cut(out, to+"\n")
	require.True(t, ok, "%s", to)
	return out
}

// A gateway says on its control socket what it does, to its owner alone, as a daemon does.
func TestGatewayStatus(t *testing.T) {
	needGateway(t)
	need(t, "python3")
	warm(t)
	p := policyByName(t, "127.0.0.1:5300", `  - {name: by name, layer: ALE_AUTH_CONNECT_V4, action: permit, weight: 9, conditions: [{field: PEER_NAME, value: app.example}]}
`)
	cmd := exec.CommandContext(t.Context(), "sh", "-euc", behindGateway+`
resolver= gateway=
trap 'cat "$3/log"; kill $behind $resolver $gateway' EXIT
cat >"$3/names.py"
mkfifo "$3/serves"
python3 "$3/names.py" serve app.example=198.51.100.7 >"$3/serves" & resolver=$!
read line <"$3/serves"
calloutd gateway --policy "$1" --interface in --transparent --max-connections 50 --control "$3/control.sock" 2>"$3/said" & gateway=$!
read line <"$3/said"
cat <"$3/said" >"$3/log" &
behind() { nsenter -t $behind -n "$@"; }
behind python3 "$3/names.py" ask app.example
behind curl -sS -o "$3/page" http://198.51.100.7/
behind curl -sS http://198.51.100.9/ || true
echo "mode: $(stat -c %a "$3/control.sock")"
calloutd status --control "$3/control.sock"
echo json; calloutd status --control "$3/control.sock" --json
echo metrics; calloutd status --control "$3/control.sock" --metrics; echo end
curl -sS --unix-socket "$3/control.sock" http://calloutd/readyz
curl -sS --unix-socket "$3/control.sock" -X POST http://calloutd/v1/reload
calloutd gateway --policy "$1" --interface in --control "$3/control.sock" || echo "second: $?"
calloutd status --control "$3/control.sock" >"$3/status"
kill -INT $gateway
wait $gateway
gateway=
ls "$3/control.sock" || echo "it is gone"
calloutd status --control "$3/control.sock" || echo "status: $?"
`, "sh", p, "", t.TempDir())
	cmd.Stdin = strings.NewReader(namesPy)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	r := finish(t, cmd)
	require.Zero(t, r.code, r.stderr+r.stdout)
	require.Contains(t, r.stdout, "mode: 600\n")
	for _, line := range []string{`state +ready, process \d+, for \d+s`, `policy +.*, generation 1, 3 filters, since .*`, `digest +[0-9a-f]{64}`, `callout +redirect \(.*\): [1-9]\d* decisions, 0 failures`,
		`proxy +look \(inspect\) at 127.0.0.1:\d+`, `gateway +table calloutd, for in: its rules are there, its guard is there`, `connections +[01] of 50 that may be, 1 carried up to now, 1 refused: policy`,
		`datagrams +\d flows?, 0 bytes wait`, `names +of addresses: 1, in \d+ bytes; 0 were forgotten before their time, 0 answers were to clients that are too many`} {
		require.Regexp(t, `(?m)^`+line+`$`, r.stdout)
	}
	require.NotRegexp(t, `(?m)^reloads`, r.stdout)
	var s control.Status
	require.NoError(t, json.Unmarshal([]byte(part(t, r.stdout, "json", "metrics")), &s))
	require.Equal(t, []string{"in"}, s.Gateway.Interfaces)
	require.EqualValues(t, 1, s.Connections.Carried)
	require.EqualValues(t, 1, s.Connections.Refused[enforce.RefusedByPolicy])
	require.EqualValues(t, 1, s.Names.Clients)
	metrics := part(t, r.stdout, "metrics", "end")
	for _, line := range []string{"ready 1", "policy_generation 1", "gateway_rules 1", "gateway_guard 1", "connections_max 50", "connections_carried_total 1", `connections_refused_total{why="policy"} 1`, "names_forgotten_total 0"} {
		require.Contains(t, metrics, "\ncalloutd_"+line+"\n")
	}
	require.Contains(t, r.stdout, `"ok": true`)
	require.Contains(t, r.stdout, "a gateway keeps the policy that it began with")
	require.Regexp(t, `second: 125`, r.stdout)
	require.Contains(t, r.stderr, "control.sock is in use: is there another daemon? (--control names another socket)")
	require.Contains(t, r.stdout, "it is gone\nstatus: 125\n")
}
