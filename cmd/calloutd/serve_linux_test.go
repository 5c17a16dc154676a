package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/wsk/ntstatus"
)

const blocksAccepts = `
  - {name: nobody comes in, layer: ALE_AUTH_RECV_ACCEPT, action: block}
`

// The life of a daemon: a policy, a better one, a wrong one, and the end.
func TestServe(t *testing.T) {
	dir := folder(t, servePolicy)
	s := serve(t, dir)
	require.ErrorIs(t, s.asks(), ntstatus.NotFound)
	first := s.status()
	require.Equal(t, "ready", first.State)
	require.EqualValues(t, 1, first.Policy.Generation)
	require.Equal(t, 1, first.Policy.Filters, "as the policy file has them: for both IP versions it is one")
	require.Len(t, first.Policy.Digest, 64)
	require.Len(t, first.Proxies, 1)
	require.Equal(t, s.cmd.Process.Pid, first.PID)
	require.EqualValues(t, 2, first.Remote.Requests)

	put(t, filepath.Join(dir, "policy.yaml"), servePolicy+blocksAccepts)
	require.EqualValues(t, 2, s.wait("policy in force")["generation"])
	require.ErrorIs(t, s.asks(), ntstatus.AccessDenied)
	require.ErrorContains(t, s.asks(), `by filter `)

	put(t, filepath.Join(dir, "policy.yaml"), "version: 1\nfilters: [{name: x, layer: ALE_AUTH_CONNEC, action: block}]\n")
	line := s.wait("policy not taken, the last good one stays in force")
	require.Equal(t, "ERROR", line["level"])
	require.EqualValues(t, 2, line["generation"])
	require.Regexp(t, `^policy\.yaml:2:\d+: .*ALE_AUTH_CONNECT`, line["mistake"])
	require.ErrorIs(t, s.asks(), ntstatus.AccessDenied, "the last good one is in force")
	st := s.status()
	require.EqualValues(t, 2, st.Policy.Generation)
	require.EqualValues(t, 1, st.Reload.Failures)
	require.Equal(t, line["mistake"], st.Reload.Error)
	require.Equal(t, first.Proxies, st.Proxies, "a proxy that is in both policies goes on")

	put(t, filepath.Join(dir, "policy.yaml"), servePolicy)
	require.EqualValues(t, 3, s.wait("policy in force")["generation"])
	require.ErrorIs(t, s.asks(), ntstatus.NotFound)
	st = s.status()
	require.Empty(t, st.Reload.Error)
	require.Equal(t, first.Policy.Digest, st.Policy.Digest, "of the same files the same")

	s.signal(syscall.SIGHUP)
	require.Equal(t, "SIGHUP", s.wait("reload")["why"])
	require.EqualValues(t, 4, s.wait("policy in force")["generation"])
	s.end()
	r := calloutd(t, "status", "--control", filepath.Join(dir, "control.sock"))
	require.Equal(t, codeTool, r.code)
	require.Contains(t, r.stderr, "calloutd: no daemon listens on ")
}

// What the policy names is watched as the policy is: modules, lists, links.
func TestServeReloadsWhenAModuleChanges(t *testing.T) {
	dir := folder(t, `version: 1
sets:
  - {id: known, file: known.txt}
callouts:
  - {id: c, wasm: current/callout.wasm, sets: [known]}
filters:
  - {name: asks, layer: ALE_AUTH_RECV_ACCEPT, action: callout, callout: c}
`)
	put(t, filepath.Join(dir, "known.txt"), "192.0.2.0/24\n")
	for version, wasm := range map[string]string{"v1": "good", "v2": "bad", "v3": "imports"} {
		require.NoError(t, os.Mkdir(filepath.Join(dir, version), 0o755))
		src, err := os.ReadFile("../../host/guest/testdata/" + wasm + ".wasm")
		require.NoError(t, err)
		put(t, filepath.Join(dir, version, "callout.wasm"), string(src))
	}
	link := func(version string) {
		require.NoError(t, os.Symlink(version, filepath.Join(dir, "next")))
		require.NoError(t, os.Rename(filepath.Join(dir, "next"), filepath.Join(dir, "current")))
	}
	link("v1")
	s := serve(t, dir)
	require.ErrorContains(t, s.asks(), `callout "c" (ARB-01): the policy blocks it`)
	link("v2")
	s.wait("policy in force")
	require.ErrorContains(t, s.asks(), "the guest gave no answer")
	require.Positive(t, s.status().Callouts["c"].Failures)
	require.Regexp(t, `(?m)^calloutd_callout_failures_total\{callout="c"\} [1-9]`, calloutd(t, "status", "--metrics", "--control", filepath.Join(dir, "control.sock")).stdout)
	link("v3")
	require.Contains(t, s.wait("policy not taken, the last good one stays in force")["mistake"], `callout module "c"`)
	link("v1")
	s.wait("policy in force")
	require.ErrorContains(t, s.asks(), "the policy blocks it")
	put(t, filepath.Join(dir, "known.txt"), "192.0.2.0/33\n")
	require.Contains(t, s.wait("policy not taken, the last good one stays in force")["mistake"], "known.txt:1:1: ")
	put(t, filepath.Join(dir, "known.txt"), "198.51.100.0/24\n")
	s.wait("policy in force")
	s.end()
}

// Proxies come and go with policies.
func TestServeProxies(t *testing.T) {
	dir := folder(t, servePolicy)
	s := serve(t, dir)
	old := s.status().Proxies[0].Address
	put(t, filepath.Join(dir, "policy.yaml"), strings.Replace(servePolicy, "look, kind: inspect", "on, kind: forward", 1))
	s.wait("policy in force")
	st := s.status()
	require.Len(t, st.Proxies, 1)
	require.Equal(t, "forward", st.Proxies[0].Kind)
	require.NotEqual(t, old, st.Proxies[0].Address)
	require.Eventually(t, func() bool {
		_, err := net.Dial("tcp", old)
		return errors.Is(err, syscall.ECONNREFUSED)
	}, time.Minute, time.Millisecond, "the old one has ended")

	busy, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer busy.Close()
	put(t, filepath.Join(dir, "policy.yaml"), strings.Replace(servePolicy, "inspect}", fmt.Sprintf("inspect, listen: %q}", busy.Addr()), 1))
	require.Regexp(t, `^policy\.yaml:3:\d+: inspect: wsk: bind: STATUS_`, s.wait("policy not taken, the last good one stays in force")["mistake"])
	require.Equal(t, st.Proxies, s.status().Proxies)
	s.end()
}

// A second signal ends what does not end.
func TestServeSecondSignal(t *testing.T) {
	dir := folder(t, servePolicy)
	s := serve(t, dir, "--drain", "1h")
	proxy := s.status().Proxies[0].Address
	// A program takes long to start, and in a few seconds the connection below would be
	// given up: this one has started, and hears nothing until the daemon drains.
	asks, err := net.Listen("unix", filepath.Join(dir, "asks"))
	require.NoError(t, err)
	defer asks.Close()
	status := make(chan result, 1)
	go func() { status <- calloutd(t, "status", "--control", asks.Addr().String()) }()
	asked, err := asks.Accept()
	require.NoError(t, err)
	defer asked.Close()
	c, err := net.Dial("tcp", proxy)
	require.NoError(t, err)
	defer c.Close()
	_, err = io.WriteString(c, "GET / HT")
	require.NoError(t, err)
	for range 20 { // Who came later has been served: so is the first one.
		r, err := http.Get("http://" + proxy)
		require.NoError(t, err)
		require.NoError(t, r.Body.Close())
	}
	s.signal(syscall.SIGTERM)
	s.wait("draining")
	daemon, err := net.Dial("unix", filepath.Join(dir, "control.sock"))
	require.NoError(t, err)
	defer daemon.Close()
	go func() { _, _ = io.Copy(daemon, asked) }()
	go func() { _, _ = io.Copy(asked, daemon) }()
	r := <-status
	require.Equal(t, codeNo, r.code, r.stderr)
	require.Contains(t, r.stdout, "state")
	require.Contains(t, r.stdout, "draining, process ")
	s.signal(syscall.SIGTERM)
	require.Equal(t, false, s.wait("ended")["in order"])
	require.NoError(t, s.cmd.Wait())
}

// Readiness and health are for whoever speaks HTTP.
func TestServeControl(t *testing.T) {
	dir := folder(t, servePolicy)
	s := serve(t, dir)
	c := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(dir, "control.sock"))
	}}}
	defer c.CloseIdleConnections()
	for _, x := range []struct {
		method, path string
		code         int
		body         string
	}{
		{"GET", "/healthz", 200, `"ok": true`}, {"GET", "/readyz", 200, `"ok": true`}, {"GET", "/v1/status", 200, `"generation": 1`},
		{"POST", "/v1/reload", 200, `"ok": true`}, {"GET", "/v1/status", 200, `"generation": 2`}, {"GET", "/metrics", 200, "\ncalloutd_policy_generation 2\n"}, {"GET", "/v1/reload", 405, ""}, {"GET", "/", 404, ""},
	} {
		req, err := http.NewRequestWithContext(t.Context(), x.method, "http://calloutd"+x.path, nil)
		require.NoError(t, err)
		r, err := c.Do(req)
		require.NoError(t, err)
		body, err := io.ReadAll(r.Body)
		require.NoError(t, err)
		require.NoError(t, r.Body.Close())
		require.Equal(t, x.code, r.StatusCode, x.path)
		require.Contains(t, string(body), x.body, x.path)
	}
	r := calloutd(t, "serve", "--policy", filepath.Join(dir, "policy.yaml"), "--control", filepath.Join(dir, "other.sock"), "--remote", filepath.Join(dir, "remote.sock"))
	require.Equal(t, codeTool, r.code)
	require.Contains(t, r.stderr, "remote.sock is in use: is there another daemon?")
	r = calloutd(t, "serve", "--policy", filepath.Join(dir, "policy.yaml"), "--control", filepath.Join(dir, "policy.yaml", "control.sock"), "--remote", "")
	require.Equal(t, codeTool, r.code)
	require.Contains(t, r.stderr, "policy.yaml: not a directory (--control and --remote name other sockets)")
	s.end()
}

// Who reads the log may end: the policy stays in force.
func TestServeOutlivesWhoReadsItsLog(t *testing.T) {
	dir := folder(t, servePolicy)
	read, write, err := os.Pipe()
	require.NoError(t, err)
	cmd := exec.Command("calloutd", "serve", "--policy", "policy.yaml", "--control", "control.sock", "--remote", "remote.sock", "--log-format", "json")
	cmd.Dir, cmd.Stderr = dir, write
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	require.NoError(t, write.Close())
	s := &served{t: t, dir: dir, cmd: cmd, log: bufio.NewScanner(read)}
	s.wait("ready")
	require.NoError(t, read.Close())
	put(t, filepath.Join(dir, "policy.yaml"), servePolicy+blocksAccepts)
	require.Eventually(t, func() bool { return s.status().Policy.Generation == 2 }, time.Minute, 10*time.Millisecond)
	s.signal(syscall.SIGTERM)
	require.NoError(t, cmd.Wait())
}
