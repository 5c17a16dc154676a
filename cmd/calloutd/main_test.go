package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/wsk/localproxy"
)

// The test binary is calloutd itself when asked to be.
func TestMain(m *testing.M) {
	if os.Getenv("CALLOUTD_TEST_MAIN") != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

type result struct {
	stdout, stderr string
	code           int
}

func calloutd(t *testing.T, args ...string) result {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), "CALLOUTD_TEST_MAIN=1")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		require.NoError(t, err)
	}
	return result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

const (
	quickstart = "../../examples/quickstart/policy.yaml"
	forward    = "../../examples/forward/policy.yaml"
)

func linux(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("run enforces on Linux only")
	}
}

// The README's first command.
func TestQuickstart(t *testing.T) {
	linux(t)
	r := calloutd(t, "run", "--policy", quickstart, "--", "curl", "-s", "http://198.51.100.7/")
	require.Zero(t, r.code, r.stderr)
	require.Contains(t, r.stdout, `"original_destination":"198.51.100.7:80"`)
	var rep localproxy.Report
	require.NoError(t, json.Unmarshal([]byte(r.stdout), &rep))
	require.Equal(t, "redirected-by-self", rep.RedirectState)
	require.Positive(t, rep.RecordsBytes)
	require.LessOrEqual(t, rep.RecordsBytes, 1024)
	require.Equal(t, 256, rep.ContextBytes, "two SOCKADDR_STORAGE")
	require.NotZero(t, rep.Client.PID)
	require.Contains(t, rep.Client.Program, "curl")
	require.Equal(t, "proxy-redirect", rep.Callout)
}

func origin(t *testing.T) string {
	for port := 8400; port < 8990; port++ {
		ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", itoa(port)))
		if err != nil {
			continue
		}
		srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "origin says hello\n") }))
		srv.Listener.Close()
		srv.Listener = ln
		srv.Start()
		t.Cleanup(srv.Close)
		return ln.Addr().String()
	}
	t.Fatal("no free port")
	return ""
}

func itoa(n int) string { b, _ := json.Marshal(n); return string(b) }

// Real clients reach a real server through the forward proxy, each redirected
// once, and the proxy's own connection is redirected-by-self.
func TestForwardRealClients(t *testing.T) {
	linux(t)
	addr := origin(t)
	host, port, _ := net.SplitHostPort(addr)
	for name, argv := range map[string][]string{
		"curl":    {"curl", "-s", "http://" + addr + "/"},
		"wget":    {"wget", "-qO-", "http://" + addr + "/"},
		"python3": {"python3", "-c", "import urllib.request as u; print(u.urlopen('http://" + addr + "/').read().decode(), end='')"},
		"node":    {"node", "-e", "fetch('http://" + addr + "/').then(r=>r.text()).then(t=>process.stdout.write(t))"},
		"bash":    {"bash", "-c", "exec 3<>/dev/tcp/" + host + "/" + port + "; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := exec.LookPath(argv[0]); err != nil {
				if os.Getenv("CI") != "" {
					t.Fatalf("%s is missing in CI", argv[0])
				}
				t.Skipf("%s is not installed", argv[0])
			}
			events := filepath.Join(t.TempDir(), "events")
			r := calloutd(t, append([]string{"run", "--policy", forward, "--trace", "--json", "--events", events, "--"}, argv...)...)
			require.Zero(t, r.code, r.stderr)
			require.Contains(t, r.stdout, "origin says hello")
			trace, err := os.ReadFile(events)
			require.NoError(t, err)
			require.Equal(t, 1, strings.Count(string(trace), `"redirect-applied"`), "%s", trace)
			require.Contains(t, string(trace), `"redirected-by-self"`)
		})
	}
}

func TestExitCodeIsTheCommands(t *testing.T) {
	linux(t)
	require.Equal(t, 7, calloutd(t, "run", "--policy", quickstart, "--", "sh", "-c", "exit 7").code)
}

func policy(t *testing.T, text string) string {
	p := filepath.Join(t.TempDir(), "policy.yaml")
	require.NoError(t, os.WriteFile(p, []byte(text), 0o600))
	return p
}

func TestBlockedConnectSaysWhy(t *testing.T) {
	linux(t)
	p := policy(t, `version: 1
filters:
  - {name: no web, layer: ALE_AUTH_CONNECT_V4, action: block, conditions: [{field: IP_REMOTE_PORT, value: 8399}]}
`)
	r := calloutd(t, "run", "--policy", p, "--", "curl", "-sS", "http://127.0.0.1:8399/")
	require.NotZero(t, r.code)
	require.Contains(t, r.stderr, `blocked at ALE_AUTH_CONNECT_V4 by filter 1 "no web"`)
}

func TestSim(t *testing.T) {
	r := calloutd(t, "sim", "--policy", quickstart, "--to", "198.51.100.7:80")
	require.Zero(t, r.code, r.stderr)
	require.Contains(t, r.stdout, "ALE_CONNECT_REDIRECT_V4")
	require.Contains(t, r.stdout, `calls "proxy-redirect"`)
	require.Contains(t, r.stdout, "asked for 198.51.100.7:80")
	r = calloutd(t, "sim", "--policy", quickstart, "--to", "nonsense")
	require.Equal(t, 125, r.code)
	require.Contains(t, r.stderr, "expected an address and a port")
}

func TestCheck(t *testing.T) {
	r := calloutd(t, "check", quickstart, forward)
	require.Zero(t, r.code, r.stderr)
	bad := policy(t, "version: 1\nfilters:\n  - {name: x, layer: ALE_CONNECT_V4, action: blok}\n")
	r = calloutd(t, "check", bad)
	require.Equal(t, 1, r.code)
	require.Contains(t, r.stderr, "policy.yaml:3:")
}

func TestDoctorAndVersion(t *testing.T) {
	require.Contains(t, calloutd(t, "version").stdout, "calloutd ")
	r := calloutd(t, "doctor", "--json")
	require.Zero(t, r.code, r.stderr)
	require.True(t, json.Valid([]byte(r.stdout)))
}
