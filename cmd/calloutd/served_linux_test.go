package main

import (
	"bufio"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/cmd/calloutd/internal/control"
	"github.com/calloutd/calloutd/wsk/remote"
)

// A served daemon is the real program, with its log.
type served struct {
	t        *testing.T
	dir      string
	cmd      *exec.Cmd
	log      *bufio.Scanner
	seen     []string // lines of the log
	loopback *net.TCPListener
}

const servePolicy = `version: 1
proxies:
  - {id: look, kind: inspect}
filters:
  - {name: no mail, layer: ALE_AUTH_CONNECT, action: block, conditions: [{field: IP_REMOTE_PORT, value: 25}]}
`

// serve starts a daemon in a folder with policy.yaml, and waits until it is ready.
func serve(t *testing.T, dir string, args ...string) *served {
	t.Helper()
	args = append([]string{"serve", "--policy", "policy.yaml", "--control", "control.sock", "--remote", "remote.sock", "--log-format", "json"}, args...)
	return start(t, dir, exec.Command("calloutd", args...))
}

func start(t *testing.T, dir string, cmd *exec.Cmd) *served {
	t.Helper()
	s := &served{t: t, dir: dir, cmd: cmd}
	cmd.Dir = dir
	stderr, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	s.log = bufio.NewScanner(stderr)
	s.wait("ready")
	return s
}

// wait waits for a line of the log and returns its keys.
func (s *served) wait(msg string) map[string]any {
	s.t.Helper()
	for s.log.Scan() {
		s.seen = append(s.seen, s.log.Text())
		var line map[string]any
		require.NoError(s.t, json.Unmarshal(s.log.Bytes(), &line), "%s", s.log.Text())
		if line["msg"] == msg {
			return line
		}
	}
	s.t.Fatalf("the log has no %q:\n%s", msg, strings.Join(s.seen, "\n"))
	return nil
}

func (s *served) signal(sig os.Signal) { require.NoError(s.t, s.cmd.Process.Signal(sig)) }

// end ends the daemon and checks that it went in order.
func (s *served) end() {
	s.t.Helper()
	s.signal(syscall.SIGTERM)
	require.Equal(s.t, true, s.wait("ended")["in order"])
	for s.log.Scan() {
		s.t.Error(s.log.Text())
	}
	require.NoError(s.t, s.cmd.Wait())
	for _, name := range []string{"control.sock", "remote.sock"} {
		require.NoFileExists(s.t, filepath.Join(s.dir, name))
	}
}

func (s *served) status() (st control.Status) {
	s.t.Helper()
	r := calloutd(s.t, "status", "--json", "--control", filepath.Join(s.dir, "control.sock"))
	require.Zero(s.t, r.code, r.stderr)
	require.NoError(s.t, json.Unmarshal([]byte(r.stdout), &st))
	return st
}

// asks asks the daemon about a connection of its own that a socket accepted: the
// policy in force decides whether it may come in.
func (s *served) asks() error {
	s.t.Helper()
	if s.loopback == nil {
		var err error
		s.loopback, err = net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		require.NoError(s.t, err)
		s.t.Cleanup(func() { s.loopback.Close() })
	}
	c, err := net.Dial("tcp4", s.loopback.Addr().String())
	require.NoError(s.t, err)
	defer c.Close()
	accepted, err := s.loopback.AcceptTCP()
	require.NoError(s.t, err)
	defer accepted.Close()
	client, err := remote.Dial(s.t.Context(), filepath.Join(s.dir, "remote.sock"))
	require.NoError(s.t, err)
	defer client.Close()
	_, err = client.RedirectRecords(s.t.Context(), accepted)
	return err
}

func folder(t *testing.T, policy string) string {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "policy.yaml"), policy)
	return dir
}

func put(t *testing.T, file, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(file+"~", []byte(text), 0o600)) // as editors do
	require.NoError(t, os.Rename(file+"~", file))
}
