package main

import (
	"fmt"
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
)

// A stranger is a proxy that is not ours.
type stranger struct {
	tool string
	kind string // of the policy
	// config is written to a file, if there is any; %PORT is where to listen, %DIR
	// a folder for what it needs.
	config string
	argv   []string                    // %FILE is the config file
	server func(t *testing.T) []string // what argv goes on; optional
	env    string                      // user:password
	// shows is what the origin sees of the proxy.
	shows func(t *testing.T, h http.Header)
}

var strangers = []stranger{
	{tool: "nginx", kind: "proxy-protocol", argv: []string{"-c", "%FILE", "-e", "%DIR/error"}, config: `
daemon off; master_process off; pid %DIR/pid; error_log %DIR/error;
events {}
http {
  access_log off;
  client_body_temp_path %DIR/b; proxy_temp_path %DIR/p; fastcgi_temp_path %DIR/f; uwsgi_temp_path %DIR/u; scgi_temp_path %DIR/s;
  server {
    listen 127.0.0.1:%PORT proxy_protocol;
    location / {
      proxy_pass http://$proxy_protocol_server_addr:$proxy_protocol_server_port;
      proxy_set_header X-Client $proxy_protocol_addr;
    }
  }
}`, shows: func(t *testing.T, h http.Header) { require.Equal(t, "127.0.0.1", h.Get("X-Client")) }},
	// haproxy also checks the CRC32C.
	{tool: "haproxy", kind: "proxy-protocol", argv: []string{"-db", "-f", "%FILE"}, config: `
defaults
  mode http
  timeout connect 30s
  timeout client 30s
  timeout server 30s
listen here
  bind 127.0.0.1:%PORT accept-proxy
  http-request set-header X-Unique %[fc_pp_unique_id,hex]
  http-request set-header X-Destination %[dst]:%[dst_port]
  server there 0.0.0.0:0
`, shows: func(t *testing.T, h http.Header) {
		require.Len(t, h.Get("X-Unique"), 32)
		require.Regexp(t, `^127\.0\.0\.1:8\d+$`, h.Get("X-Destination"))
	}},
	{tool: "microsocks", kind: "socks5", argv: []string{"-i", "127.0.0.1", "-p", "%PORT"}},
	{tool: "microsocks", kind: "socks5", argv: []string{"-i", "127.0.0.1", "-p", "%PORT", "-u", "me", "-P", "secret"}, env: "me:secret"},
	{tool: "danted", kind: "socks5", argv: []string{"-f", "%FILE", "-p", "%DIR/pid"}, config: dante},
	{tool: "sshd", kind: "socks5", server: func(t *testing.T) []string {
		ssh, port := sshServer(t)
		return append(ssh, "-N", "-p", port, "root@127.0.0.1")
	}, argv: []string{"-D", "127.0.0.1:%PORT"}},
	{tool: "squid", kind: "http-connect", argv: []string{"-N", "-f", "%FILE"}, config: `
http_port 127.0.0.1:%PORT
acl there port 8000-8999
http_access allow CONNECT there
http_access deny all
pid_filename none
cache_log /dev/null
access_log none
cache deny all
memory_cache_shared off
coredump_dir %DIR
netdb_filename none
pinger_enable off
shutdown_lifetime 0
`},
	{tool: "tinyproxy", kind: "http-connect", argv: []string{"-d", "-c", "%FILE"}, env: "me:secret", config: `
Port %PORT
Listen 127.0.0.1
Timeout 30
BasicAuth me secret
LogLevel Critical
`},
}

const dante = `
logoutput: %DIR/log
internal: 127.0.0.1 port = %PORT
external: 127.0.0.1
clientmethod: none
socksmethod: none
user.privileged: root
user.unprivileged: nobody
client pass { from: 0/0 to: 0/0 }
socks pass { from: 0/0 to: 0/0 command: bind connect udpassociate bindreply udpreply }
`

// start starts the proxy and returns where it listens. Its port may be lost to a program
// that is none of these tests: the next is tried.
func (s stranger) start(t *testing.T) string {
	t.Helper()
	need(t, s.tool)
	for range 5 {
		if addr := s.try(t); addr != "" {
			return addr
		}
	}
	t.Fatalf("%s does not start", s.tool)
	return ""
}

func (s stranger) try(t *testing.T) string {
	free := listenAmong(t, 9000, 9990)
	addr := free.Addr().String()
	free.Close()
	_, port, _ := net.SplitHostPort(addr)
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o777)) // It may become another user.
	file := filepath.Join(dir, "config")
	fill := strings.NewReplacer("%PORT", port, "%DIR", dir, "%FILE", file)
	require.NoError(t, os.WriteFile(file, []byte(fill.Replace(s.config)), 0o644))
	argv := []string{s.tool}
	if s.server != nil {
		argv = s.server(t)
	}
	for _, a := range s.argv {
		argv = append(argv, fill.Replace(a))
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // Some have things to take away, and children.
		hangs := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
		<-ended
		hangs.Stop()
	})
	for late := time.After(2 * time.Minute); ; {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			return addr
		}
		select {
		case err := <-ended:
			t.Logf("%s: %v\n%s", s.tool, err, out.String())
			return ""
		case <-late:
			t.Fatalf("%v does not listen on %s after two minutes", argv, addr)
		case <-time.After(5 * time.Millisecond): // It tells nobody that it listens.
		}
	}
}

// policy redirects ports to the proxy, of TCP and UDP.
func (s stranger) policy(t *testing.T, addr string, ports ...string) string {
	plugin, err := filepath.Abs("../../plugins/proxy-redirect/proxy-redirect.wasm")
	require.NoError(t, err)
	credentials := ""
	if s.env != "" {
		credentials = ", credentials: {env: STRANGER}"
	}
	return policy(t, fmt.Sprintf(`version: 1
proxies: [{id: stranger, kind: %s, address: %q%s}]
callouts:
  - id: redirect
    wasm: %s
    config: {rules: [{destinations: [127.0.0.0/8], ports: ["%s"], proxy: "${proxy:stranger}", proxy_pid: "${pid}"}]}
filters:
  - {name: to the stranger, layer: ALE_CONNECT_REDIRECT, action: callout, callout: redirect}
`, s.kind, addr, credentials, plugin, strings.Join(ports, `", "`)))
}
