package main

import (
	"bufio"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// recordedPolicy redirects, blocks and permits.
func recordedPolicy(t *testing.T) string {
	t.Helper()
	module, err := filepath.Abs("../../plugins/proxy-redirect/proxy-redirect.wasm")
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "policy.yaml")
	require.NoError(t, os.WriteFile(file, []byte(`version: 1
proxies:
  - {id: look, kind: inspect}
callouts:
  - id: redirect
    wasm: `+module+`
    config: {rules: [{destinations: [198.51.100.0/24], proxy: "${proxy:look}", proxy_pid: "${pid}"}]}
filters:
  - {name: web, layer: ALE_CONNECT_REDIRECT_V4, action: callout, callout: redirect, conditions: [{field: IP_PROTOCOL, value: tcp}]}
  - {name: no mail, layer: ALE_AUTH_CONNECT_V4, action: block, conditions: [{field: IP_REMOTE_PORT, value: 25}]}
`), 0o600))
	return file
}

// decidedAgain replays a file: every decision, destination, context and record is as it
// was, byte by byte.
func decidedAgain(t *testing.T, file, policy, actions string) {
	t.Helper()
	r := calloutd(t, "replay", file, "--policy", policy)
	require.Zero(t, r.code, "%s%s", r.stdout, r.stderr)
	lines := strings.Split(strings.TrimSpace(r.stdout), "\n")
	require.Len(t, lines, 2, r.stdout)
	require.Contains(t, lines[0], actions)
	require.Regexp(t, `^0 of (\d+) recorded decisions differ$`, lines[1])
	require.NotContains(t, lines[1], "of 0 ")
}

// What attach decides is in the file, that of the kernel alone too.
func TestAttachRecords(t *testing.T) {
	need(t, "curl")
	cgroup, in := newCgroup(t)
	warm(t)
	policy, file := recordedPolicy(t), filepath.Join(t.TempDir(), "attach.flight")
	daemon := exec.CommandContext(t.Context(), "calloutd", "attach", "--policy", policy, "--cgroup", cgroup, "--record", file)
	stderr, err := daemon.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, daemon.Start())
	said := bufio.NewReader(stderr)
	line, err := said.ReadString('\n')
	require.NoError(t, err)
	require.Contains(t, line, "attached to "+cgroup)
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("plain")) }))
	defer plain.Close()

	fetch := func(url string) (string, error) {
		curl := exec.CommandContext(t.Context(), "curl", "-s", url)
		curl.SysProcAttr = in
		out, err := curl.Output()
		return string(out), err
	}
	out, err := fetch("http://198.51.100.7/")
	require.NoError(t, err)
	require.Contains(t, out, `"original_destination":"198.51.100.7:80"`)
	out, err = fetch(plain.URL)
	require.NoError(t, err)
	require.Equal(t, "plain", out)
	_, err = fetch("http://127.0.0.1:25/")
	require.Error(t, err)
	for !strings.Contains(line, "blocked") { // The kernel tells in order, so all of it came.
		line, err = said.ReadString('\n')
		require.NoError(t, err)
	}

	require.NoError(t, daemon.Process.Signal(os.Interrupt))
	require.NoError(t, daemon.Wait())
	decidedAgain(t, file, policy, "block 1")
	list := calloutd(t, "replay", file).stdout
	require.Regexp(t, `/curl 198.51.100.7:80 tcp.*: redirect to proxy:look by filter "web", callout "redirect"`, list)
	require.Regexp(t, `/curl 127.0.0.1:\d+ tcp.*: permit`, list)
	require.Regexp(t, `/curl 127.0.0.1:25 tcp.*: block by filter "no mail": the policy blocks it`, list)
}

// What a gateway decides is in the file.
func TestGatewayRecords(t *testing.T) {
	needGateway(t)
	warm(t)
	policy, file := recordedPolicy(t), filepath.Join(t.TempDir(), "gateway.flight")
	cmd := exec.CommandContext(t.Context(), "sh", "-euc", behindGateway+`
exec 3<>"$3/said" # a reader, for what is said of the block
calloutd gateway --policy "$1" --interface in --record "$2" 2>"$3/said" & gateway=$!
read line <&3
nsenter -t $behind -n curl -sS http://198.51.100.7/
nsenter -t $behind -n curl -sS --max-time 60 http://203.0.113.7:25/ || echo " refused"
kill -INT $gateway
wait $gateway
kill $behind
`, "sh", policy, file, t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	r := finish(t, cmd)
	require.Zero(t, r.code, r.stderr)
	require.Contains(t, r.stdout, `"original_destination":"198.51.100.7:80"`)
	decidedAgain(t, file, policy, "block 1")
	require.Regexp(t, `198.51.100.7:80 tcp.*: redirect to proxy:look by filter "web"`, calloutd(t, "replay", file).stdout)
}
