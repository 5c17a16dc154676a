package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/calloutd/calloutd/host/guest"
	"github.com/calloutd/calloutd/host/policytrace"
)

// The test binary is the command, too: it connects where it is told to.
func TestMain(m *testing.M) {
	guest.CompileChild()
	if os.Getenv("AGENT_COMMAND") == "" {
		goleak.VerifyTestMain(m)
		return
	}
	for s := bufio.NewScanner(os.Stdin); s.Scan(); {
		fmt.Println(connect(s.Text()))
	}
}

func connect(to string) string {
	c, err := net.Dial("tcp", to)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	answer, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err.Error()
	}
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(body))
}

const blocksMail = `version: 1
filters: [{name: no mail, layer: ALE_AUTH_CONNECT, action: block, conditions: [{field: IP_REMOTE_PORT, value: 25}]}]
`

// A policy that redirects, with a module that is named as an absolute path.
func redirects(t *testing.T) string {
	module, err := filepath.Abs("../../plugins/proxy-redirect/proxy-redirect.wasm")
	require.NoError(t, err)
	return fmt.Sprintf(`version: 1
proxies: [{id: look, kind: inspect}]
callouts:
  - {id: redirect, wasm: %q, config: {rules: [{destinations: [192.0.2.0/24], proxy: "${proxy:look}", proxy_pid: "${pid}"}]}}
filters: [{name: documentation, layer: ALE_CONNECT_REDIRECT, action: callout, callout: redirect}]
`, module)
}

func TestAnAgentTakesPoliciesWhileItsCommandRuns(t *testing.T) {
	dir := t.TempDir()
	policy, socket := filepath.Join(dir, "policy.yaml"), filepath.Join(dir, "agent.sock")
	require.NoError(t, os.WriteFile(policy, []byte(blocksMail), 0o600))

	// The command, told where to connect and asked what came of it.
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "AGENT_COMMAND=1")
	in, tell := io.Pipe()
	answers, out := io.Pipe()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, os.Stderr
	ended := make(chan error, 1)
	go func() { ended <- run(t.Context(), policy, socket, cmd); out.Close() }()
	said := bufio.NewReader(answers)
	ask := func(to string) string {
		_, err := fmt.Fprintln(tell, to)
		require.NoError(t, err)
		line, err := said.ReadString('\n')
		require.NoError(t, err)
		return line
	}
	require.Contains(t, ask("192.0.2.7:25"), "permission denied")

	web := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	put := func(policy string) (int, string) {
		r, err := http.NewRequestWithContext(t.Context(), "PUT", "http://agent/policy", strings.NewReader(policy))
		require.NoError(t, err)
		answer, err := web.Do(r)
		require.NoError(t, err)
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		require.NoError(t, err)
		return answer.StatusCode, string(body)
	}
	answer, err := web.Get("http://agent/decisions")
	require.NoError(t, err)
	defer answer.Body.Close()
	lines := bufio.NewReader(answer.Body)
	next := func() (e policytrace.Event) {
		line, err := lines.ReadBytes('\n')
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(line, &e))
		return e
	}

	// One that is wrong is refused with the place of each mistake, and changes nothing.
	code, why := put("version: 1\nfilters: [{name: x, layer: ALE_AUTH_CONECT, action: block}]\n")
	require.Equal(t, http.StatusUnprocessableEntity, code)
	require.Contains(t, why, `policy:2:28: layer: expected a layer, found "ALE_AUTH_CONECT" (did you mean "ALE_AUTH_CONNECT"?)`)
	code, why = put("version: 1\ncallouts: [{id: x, wasm: gone.wasm}]\n")
	require.Equal(t, http.StatusUnprocessableEntity, code)
	require.Contains(t, why, "gone.wasm")
	require.Contains(t, ask("192.0.2.7:25"), "permission denied")
	e := next()
	require.Equal(t, []string{"classify", "block", "no mail"}, []string{e.Event, e.Action, e.Steps[0].Name})
	e = next()
	require.Equal(t, []string{"blocked", "192.0.2.7:25", "no mail"}, []string{e.Event, e.To, e.Name})

	// The next one decides the next connection.
	code, why = put(redirects(t))
	require.Equal(t, http.StatusNoContent, code, why)
	require.Contains(t, ask("192.0.2.7:25"), `"original_destination":"192.0.2.7:25"`)
	for e = next(); e.Event != "redirect"; e = next() {
	}
	require.Equal(t, []string{"192.0.2.7:25", "look", "documentation"}, []string{e.Original, e.Proxy, e.Name})

	_, err = listen(socket)
	require.ErrorContains(t, err, "another agent")
	require.NoError(t, tell.Close())
	require.NoError(t, <-ended)
	_, err = io.Copy(io.Discard, lines)
	require.NoError(t, err, "the stream ends with the agent")
}

func TestWhoReadsSlowlyIsToldWhatIsLost(t *testing.T) {
	var s stream
	events, stop := s.follow()
	for range most + 5 {
		s.send(policytrace.Event{Event: "x"})
	}
	for range most {
		require.Equal(t, "x", (<-events).Event)
	}
	s.send(policytrace.Event{Event: "y"})
	require.Equal(t, "5 events were lost", (<-events).Why)
	require.Equal(t, "y", (<-events).Event)
	stop()
	s.send(policytrace.Event{})
	require.Empty(t, events)
	s.end()
	events, _ = s.follow()
	_, open := <-events
	require.False(t, open)
}
