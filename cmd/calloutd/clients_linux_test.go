package main

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/policytrace"
	"github.com/calloutd/calloutd/wsk/localproxy"
)

// The README's first command.
func TestQuickstart(t *testing.T) {
	warm(t)
	need(t, "curl")
	r := calloutd(t, "run", "--policy", quickstart, "--", "curl", "-s", "http://198.51.100.7/")
	require.Zero(t, r.code, r.stderr)
	require.Empty(t, r.stderr)
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

// need skips where a client is not installed; CI has them all.
func need(t *testing.T, tool string) {
	t.Helper()
	if _, err := exec.LookPath(tool); err != nil {
		require.Empty(t, os.Getenv("CI"), "%s is missing in CI", tool)
		t.Skipf("%s is not installed", tool)
	}
}

// asRoot skips for everybody else; CI is root.
func asRoot(t *testing.T, why string) {
	t.Helper()
	if os.Geteuid() != 0 {
		require.Empty(t, os.Getenv("CI"), "CI runs as root")
		t.Skip(why)
	}
}

// origin is a port of this host that the forward policy redirects.
func origin(t *testing.T) net.Listener {
	t.Helper()
	return listenAmong(t, 8400, 8990)
}

// listenAmong listens at a port from first on. Who closes it and uses the port for
// another program finds it free until the test ends: the system gives these to nobody who
// asks for any, and another run of these tests sees that the port's name is taken.
func listenAmong(t *testing.T, first, end int) net.Listener {
	t.Helper()
	for port := first; port < end; port++ {
		name := strconv.Itoa(port)
		hold, err := net.Listen("unix", "@calloutd test port "+name)
		if err != nil {
			continue
		}
		if ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", name)); err == nil {
			t.Cleanup(func() { hold.Close() })
			return ln
		}
		hold.Close()
	}
	t.Fatal("no free port")
	return nil
}

func TestAPortThatIsClosedIsOfItsTestYet(t *testing.T) {
	first := listenAmong(t, 9000, 9990)
	require.NoError(t, first.Close())
	second := listenAmong(t, 9000, 9990)
	require.NoError(t, second.Close())
	require.NotEqual(t, first.Addr().String(), second.Addr().String())
}

func web(t *testing.T) string {
	t.Helper()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "origin says hello\n") }))
	srv.Listener.Close()
	srv.Listener = origin(t)
	srv.Start()
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

func echoes(t *testing.T) string {
	t.Helper()
	ln := origin(t)
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if _, err := io.Copy(c, c); err == nil {
					_ = c.(*net.TCPConn).CloseWrite()
				}
			}()
		}
	}()
	return ln.Addr().String()
}

// static builds the client without a C library: nothing to preload into.
func static(t *testing.T) string {
	t.Helper()
	exe := filepath.Join(t.TempDir(), "client")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", exe, "./testdata/client")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return exe
}

// Real clients reach a real server through the forward proxy, each redirected
// once and only once, and the proxy's own connection is redirected-by-self.
func TestForwardRealClients(t *testing.T) {
	warm(t)
	addr, echo := web(t), echoes(t)
	host, port, _ := net.SplitHostPort(addr)
	const hello = "origin says hello"
	for _, c := range []struct {
		name, want string
		argv       []string
	}{
		{"curl", hello, []string{"curl", "-s", "http://" + addr + "/"}},
		{"wget", hello, []string{"wget", "-qO-", "http://" + addr + "/"}},
		{"python3", hello, []string{"python3", "-c", "import urllib.request as u; print(u.urlopen('http://" + addr + "/').read().decode(), end='')"}},
		{"node", hello, []string{"node", "-e", "fetch('http://" + addr + "/').then(r=>r.text()).then(t=>process.stdout.write(t))"}},
		{"bash", hello, []string{"bash", "-c", "exec 3<>/dev/tcp/" + host + "/" + port + "; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3"}},
		{"static Go", "echoed 1", []string{static(t), echo, "1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			need(t, c.argv[0])
			events := filepath.Join(t.TempDir(), "events")
			r := calloutd(t, append([]string{"run", "--policy", forward, "--events", events, "--"}, c.argv...)...)
			require.Zero(t, r.code, r.stderr)
			require.Contains(t, r.stdout, c.want)
			var redirects, proxys uint32
			states := map[uint32][]string{}
			for _, e := range read(t, events) {
				if e.Event == "redirect" {
					redirects++
					require.Equal(t, "forward", e.Proxy)
				}
				if e.Layer == "ALE_AUTH_RECV_ACCEPT_V4" {
					proxys = e.PID
				}
				for _, s := range e.Steps {
					states[e.PID] = append(states[e.PID], s.State+" "+s.Action)
				}
			}
			require.EqualValues(t, 1, redirects, "redirected once and only once")
			require.Equal(t, []string{"redirected-by-self permit"}, states[proxys])
			delete(states, proxys)
			require.Len(t, states, 1)
			for _, s := range states {
				require.Equal(t, []string{"not-redirected redirect"}, s)
			}
		})
	}
}

func read(t *testing.T, file string) []policytrace.Event {
	t.Helper()
	f, err := os.Open(file)
	require.NoError(t, err)
	defer f.Close()
	var all []policytrace.Event
	for s := bufio.NewScanner(f); s.Scan(); {
		var e policytrace.Event
		require.NoError(t, json.Unmarshal(s.Bytes(), &e), "%s", s.Text())
		all = append(all, e)
	}
	return all
}

// A thousand connections at once lose nothing.
func TestThousandConnections(t *testing.T) {
	warm(t)
	r := calloutd(t, "run", "--policy", forward, "--", static(t), echoes(t), "1000")
	require.Equal(t, "echoed 1000\n", r.stdout, r.stderr)
	require.Zero(t, r.code)
	require.Empty(t, r.stderr)
}

// A dual-stack socket is redirected like an IPv4 one.
func TestDualStackClient(t *testing.T) {
	warm(t)
	need(t, "python3")
	r := calloutd(t, "run", "--policy", quickstart, "--", "python3", "-c", `
import socket
s = socket.socket(socket.AF_INET6)
s.connect(("::ffff:198.51.100.7", 80))
s.sendall(b"GET / HTTP/1.0\r\n\r\n")
print(s.makefile().read())`)
	require.Zero(t, r.code, r.stderr)
	require.Contains(t, r.stdout, `"original_destination":"[::ffff:198.51.100.7]:80"`)
}
