package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Proxies of others take connections of programs over that know nothing of them:
// one proxy of each kind those of all clients.
func TestStrangers(t *testing.T) {
	warm(t)
	known := map[string]bool{}
	for _, s := range strangers {
		t.Run(s.tool+" "+s.env, func(t *testing.T) {
			addr := s.start(t)
			seen := make(chan http.Header, 1)
			srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				seen <- r.Header
				_, _ = io.WriteString(w, "origin says hello\n")
			}))
			srv.Listener.Close()
			srv.Listener = origin(t)
			srv.Start()
			t.Cleanup(srv.Close)
			to := srv.Listener.Addr().String()
			_, port, _ := net.SplitHostPort(to)
			p := s.policy(t, addr, port)
			clients := [][]string{
				{"curl", "-sS", "--noproxy", "*", "http://" + to + "/"},
				{"wget", "--no-proxy", "-qO-", "http://" + to + "/"},
				{"python3", "-c", "import urllib.request as u; print(u.urlopen('http://" + to + "/').read().decode(), end='')"},
			}
			if known[s.kind] {
				clients = clients[:1]
			}
			known[s.kind] = true
			for _, client := range clients {
				need(t, client[0])
				t.Setenv("STRANGER", s.env)
				r := calloutd(t, append([]string{"run", "--policy", p, "--summary", "--"}, client...)...)
				require.Zero(t, r.code, r.stderr)
				require.Equal(t, "origin says hello\n", r.stdout, client[0])
				require.Contains(t, r.stderr, "to "+to+": redirected to "+addr+" (proxy stranger)")
				h := <-seen
				if s.shows != nil {
					s.shows(t, h)
				}
			}
			if s.env == "" {
				return
			}
			t.Setenv("STRANGER", "me:wrong")
			r := calloutd(t, "run", "--policy", p, "--", "curl", "-sS", "--noproxy", "*", "http://"+to+"/")
			require.Equal(t, 7, r.code, "curl's code for a failed connect: %s", r.stderr)
			require.Regexp(t, `failed: redirected to \S+ \(proxy stranger\) by filter 1 "to the stranger".*, where: the \S+ proxy does not take the credentials`, r.stderr)
			require.NotContains(t, r.stderr, "wrong")
		})
	}
}

// Datagrams go by way of a SOCKS proxy, and the answers come back, on sockets that
// are connected and on others, which do not mix up whom they talk to.
func TestStrangerDatagrams(t *testing.T) {
	need(t, "python3")
	warm(t)
	s := stranger{tool: "danted", kind: "socks5", argv: []string{"-f", "%FILE", "-p", "%DIR/pid"}, config: dante}
	addr := s.start(t)
	var ports []string
	for range 2 {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
		port := fmt.Sprint(c.LocalAddr().(*net.UDPAddr).Port)
		ports = append(ports, port)
		go func() {
			b := make([]byte, 1<<16)
			for {
				n, from, err := c.ReadFromUDP(b)
				if err != nil {
					return
				}
				_, _ = c.WriteToUDP(fmt.Appendf(nil, "%s heard %s", port, b[:n]), from)
			}
		}()
	}
	p := s.policy(t, addr, ports...)
	client := []string{"python3", "-c", `
import socket, sys
ports = [int(p) for p in sys.argv[1:]]
s = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in ports] + [socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)]
for c, p in zip(s, ports):
    c.connect(("127.0.0.1", p))
s[2].connect(("::ffff:127.0.0.1", ports[0]))
for n in range(3):
    for c in s:
        c.send(b"connected %d" % n)
    for c in s:
        print(c.recv(100).decode())
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for n in range(3):
    for p in ports:
        s.sendto(b"not connected %d" % n, ("127.0.0.1", p))
        print(s.recvfrom(100)[0].decode())`, ports[0], ports[1]}
	var want strings.Builder
	for n := range 3 {
		for _, i := range []int{0, 1, 0} {
			fmt.Fprintf(&want, "%s heard connected %d\n", ports[i], n)
		}
	}
	for n := range 3 {
		for _, port := range ports {
			fmt.Fprintf(&want, "%s heard not connected %d\n", port, n)
		}
	}
	for _, mode := range []string{"--isolate=false", "--isolate"} {
		r := calloutd(t, append([]string{"run", mode, "--policy", p, "--summary", "--"}, client...)...)
		require.Zero(t, r.code, r.stderr)
		require.Equal(t, want.String(), r.stdout)
		require.Contains(t, r.stderr, "redirected to "+addr+" (proxy stranger)")
	}
}

// What is wrong with credentials is told at their place, and nothing of them.
func TestCredentials(t *testing.T) {
	const text = "version: 1\nproxies: [{id: p, kind: socks5, address: \"127.0.0.1:1\", credentials: {%s}}]\n"
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "good"), []byte("me:secret:more\r\nrest"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "bad"), []byte("secret\n"), 0o600))
	t.Setenv("STRANGER", ":secret")
	for value, want := range map[string]string{
		"file: " + filepath.Join(dir, "good"): "",
		"file: " + filepath.Join(dir, "bad"):  `:2:\d+: the first line of \S+ is not user:password$`,
		"file: " + filepath.Join(dir, "none"): `:2:\d+: open \S+: no such file or directory$`,
		"env: STRANGER":                       `:2:\d+: the environment variable STRANGER is not user:password$`,
		"env: STRANGER_NONE":                  `:2:\d+: the environment variable STRANGER_NONE is not set$`,
	} {
		r := calloutd(t, "run", "--policy", policy(t, fmt.Sprintf(text, value)), "--", "true")
		if want == "" {
			require.Zero(t, r.code, r.stderr)
			continue
		}
		require.Equal(t, codeTool, r.code)
		require.Regexp(t, want, strings.TrimSpace(r.stderr))
		require.NotContains(t, r.stderr, "secret")
	}
}
