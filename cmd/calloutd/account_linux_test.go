package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What attach and serve decide is written down as what run decides is, also what
// the kernel decides by itself.
func TestAccountOfACgroup(t *testing.T) {
	need(t, "python3")
	warm(t)
	addr := web(t)
	_, port, _ := net.SplitHostPort(addr)
	plugin, err := filepath.Abs("../../plugins/proxy-redirect/proxy-redirect.wasm")
	require.NoError(t, err)
	p := policy(t, fmt.Sprintf(`version: 1
callouts:
  - id: redirect
    wasm: %s
    config: {rules: [{destinations: [198.51.100.0/24], proxy: "127.0.0.1:%s", proxy_pid: "${pid}"}]}
filters:
  - {name: not there, layer: ALE_AUTH_CONNECT, action: block, conditions: [{field: IP_REMOTE_ADDRESS, value: 192.0.2.0/24}]}
  - {name: elsewhere, layer: ALE_CONNECT_REDIRECT, action: callout, callout: redirect, conditions: [{field: IP_REMOTE_ADDRESS, value: 198.51.100.0/24}]}
`, plugin, port))
	client := []string{"python3", "-c", `
import socket, sys
for to in ("127.0.0.1", "192.0.2.7", "198.51.100.7"):
    try: c = socket.create_connection((to, int(sys.argv[1])))
    except PermissionError: print("blocked"); continue
    c.sendall(b"GET / HTTP/1.0\r\n\r\n")
    while c.recv(4096): pass
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(("127.0.0.1", 9))
sys.stdin.read()`, port}
	want := []string{
		"calloutd: 4 connections by 1 program, 1 refused",
		`      1 to 127\.0\.0\.1:9: permitted`,
		fmt.Sprintf(`      1 to 127\.0\.0\.1:%s: permitted`, port),
		fmt.Sprintf(`      1 to 192\.0\.2\.7:%s: blocked at ALE_AUTH_CONNECT_V4 by filter \d+ "not there" .*`, port),
		fmt.Sprintf(`      1 to 198\.51\.100\.7:%s: redirected to 127\.0\.0\.1:%s`, port, port),
	}
	last := regexp.MustCompile(`"ALE_FLOW_ESTABLISHED_V4".*"to":"127\.0\.0\.1:9"`)
	for _, mode := range []struct {
		ready string
		args  func(cgroup string) []string
	}{
		{"attached to", func(cgroup string) []string { return []string{"attach", "--cgroup", cgroup} }},
		{"msg=ready", func(cgroup string) []string {
			return []string{"serve", "--cgroup", cgroup, "--control", filepath.Join(t.TempDir(), "control"), "--remote", ""}
		}},
		{"", func(string) []string { return []string{"run"} }},
	} {
		events := filepath.Join(t.TempDir(), "events")
		cgroup, in := newCgroup(t)
		args := append(mode.args(cgroup), "--policy", p, "--events", events, "--summary")
		var text string
		if mode.ready == "" {
			r := calloutd(t, append(append(args, "--"), client...)...)
			require.Equal(t, "blocked\n", r.stdout, r.stderr)
			text = r.stderr
		} else {
			said, end := background(t, mode.ready, args...)
			cmd := exec.CommandContext(t.Context(), client[0], client[1:]...)
			cmd.SysProcAttr = in
			stdin, err := cmd.StdinPipe()
			require.NoError(t, err)
			go func() { // The kernel tells after the fact, and who it was is known as long as it is there.
				defer stdin.Close()
				for t.Context().Err() == nil {
					if b, err := os.ReadFile(events); err == nil && last.Match(b) {
						return
					}
					time.Sleep(time.Millisecond)
				}
			}()
			require.Equal(t, "blocked\n", finish(t, cmd).stdout)
			end()
			for line := range said {
				text += line + "\n"
			}
		}
		for _, line := range want {
			require.Regexp(t, "(?m)^"+regexp.MustCompile(`^ +`).ReplaceAllString(line, " +")+"$", text, args[0])
		}
		asked := map[string]string{}
		for _, e := range read(t, events) {
			if e.Event == "classify" && strings.HasPrefix(e.Layer, "ALE_AUTH_CONNECT") && strings.Contains(e.Program, "python3") {
				require.NotZero(t, e.PID)
				asked[e.To+" "+e.Original] = e.Action
			}
		}
		require.Equal(t, "permit", asked[addr+" "], "%s: %v", args[0], asked)
		require.Equal(t, "permit", asked[addr+" 198.51.100.7:"+port], "%s: %v", args[0], asked)
	}
}

// Where events cannot be written that is told when it begins, and not only at the end.
func TestEventsThatAreLostAreToldAtOnce(t *testing.T) {
	need(t, "bash")
	warm(t)
	r := calloutd(t, "run", "--policy", policy(t, "version: 1\n"), "--events", "/dev/full", "--", "bash", "-c", "(exec 3<>/dev/tcp/127.0.0.1/9) 2>&-; echo ended >&2")
	require.Regexp(t, `(?s)calloutd: --events: lines are missing: write /dev/full: no space left on device\n.*ended\n.*calloutd: --events: the log of events is not complete: write /dev/full: no space left on device\n$`, r.stderr)
}
