package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A worker is a program that people use, with what it needs: its servers are at
// ports that the policy redirects.
type worker struct {
	name, tool string
	// prepare starts the servers and returns the command and what it prints.
	prepare func(t *testing.T) (argv []string, want string)
}

var workers = []worker{
	{"curl", "curl", getting("curl", "-sS", "--noproxy", "*", "URL")},
	{"wget", "wget", getting("wget", "--no-proxy", "-qO-", "URL")},
	{"python", "python3", getting("python3", "-c", "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode(), end='')", "URL")},
	{"node", "node", getting("node", "-e", "fetch(process.argv[1]).then(r => r.text()).then(t => process.stdout.write(t))", "URL")},
	{"java", "javac", java},
	{"static Go", "go", staticGo},
	{"git over http", "git", gitHTTP},
	{"git over ssh", "sshd", gitSSH},
	{"apt", "apt-get", apt},
	{"nginx as a client", "nginx", nginxClient},
	{"threads", "python3", threads},
}

// serveHTTP serves at a port that is redirected.
func serveHTTP(t *testing.T, h http.Handler) string {
	srv := httptest.NewUnstartedServer(h)
	srv.Listener.Close()
	srv.Listener = origin(t)
	srv.Start()
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

func script(t *testing.T, text string, args ...string) {
	t.Helper()
	need(t, "sh")
	out, err := exec.CommandContext(t.Context(), "sh", append([]string{"-euc", text, "sh"}, args...)...).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// destination is what a client connects to in order to reach an origin: behind a
// gateway an address that only a redirect reaches.
func destination(addr string) string {
	if os.Getenv(routerEnv) == "" {
		return addr
	}
	_, port, _ := net.SplitHostPort(addr)
	return net.JoinHostPort(beyond, port)
}

// getting is a client that gets a page at URL.
func getting(argv ...string) func(*testing.T) ([]string, string) {
	return func(t *testing.T) ([]string, string) {
		addr := web(t)
		argv := slices.Clone(argv)
		argv[slices.Index(argv, "URL")] = "http://" + destination(addr) + "/"
		return argv, "origin says hello\n"
	}
}

func java(t *testing.T) ([]string, string) {
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o755))
	script(t, `javac -d "$1" testdata/java/Get.java`, dir)
	return []string{"java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", dir, "Get", "http://" + destination(web(t)) + "/"}, "origin says hello\norigin says hello\n"
}

func staticGo(t *testing.T) ([]string, string) {
	return []string{static(t), destination(echoes(t)), "64"}, "echoed 64\n"
}

// repository makes one with a file in it.
func repository(t *testing.T) (dir string) {
	dir = t.TempDir()
	script(t, `cd "$1"; git init -q -b main work; cd work; echo hello >file; git add file
git -c user.name=a -c user.email=a@example commit -qm first; git clone -q --bare . ../repo.git; git -C ../repo.git update-server-info`, dir)
	return dir
}

// clone clones to a place that is new each time and prints the file. The
// repository may be another user's.
const clone = `d=$(mktemp -d); trap 'rm -rf "$d"' EXIT; git -c safe.directory='*' clone -q "$1" "$d/c"; cat "$d/c/file"`

func gitHTTP(t *testing.T) ([]string, string) {
	need(t, "sh")
	backend, err := exec.Command("git", "--exec-path").Output()
	require.NoError(t, err)
	addr := serveHTTP(t, &cgi.Handler{Path: filepath.Join(strings.TrimSpace(string(backend)), "git-http-backend"),
		Env: []string{"GIT_PROJECT_ROOT=" + repository(t), "GIT_HTTP_EXPORT_ALL=1"}})
	return []string{"sh", "-euc", clone, "sh", "http://" + destination(addr) + "/repo.git"}, "hello\n"
}

func gitSSH(t *testing.T) ([]string, string) {
	ssh, port := sshServer(t)
	return []string{"env", "GIT_SSH_COMMAND=" + strings.Join(ssh, " "), "sh", "-euc", clone, "sh",
		"ssh://root@" + destination("127.0.0.1:"+port) + repository(t) + "/repo.git"}, "hello\n"
}

// sshServer starts one, and returns a client that may log in.
func sshServer(t *testing.T) (client []string, port string) {
	if os.Geteuid() != 0 {
		require.Empty(t, os.Getenv("CI"), "CI runs as root")
		t.Skip("sshd lets others log in as root only")
	}
	dir := t.TempDir()
	sshd, err := exec.LookPath("sshd")
	require.NoError(t, err)
	script(t, `cd "$1"; mkdir -p /run/sshd; ssh-keygen -q -t ed25519 -N "" -f host; ssh-keygen -q -t ed25519 -N "" -f user; cp user.pub allowed`, dir)
	l := origin(t)
	_, port, _ = net.SplitHostPort(l.Addr().String())
	l.Close()
	cmd := exec.Command(sshd, "-D", "-e", "-f", "/dev/null", "-p", port, "-h", dir+"/host", "-o", "ListenAddress=127.0.0.1", "-o", "StrictModes=no",
		"-o", "AuthorizedKeysFile="+dir+"/allowed", "-o", "PidFile=none")
	serving(t, cmd, "127.0.0.1:"+port)
	return []string{"ssh", "-F", "none", "-i", dir + "/user", "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
		"-o", "LogLevel=ERROR"}, port
}

// serving starts a server and waits until it listens.
func serving(t *testing.T, cmd *exec.Cmd, addr string) {
	t.Helper()
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	require.Eventually(t, func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	}, time.Minute, 5*time.Millisecond, "%v does not listen", cmd.Args)
}

// apt updates from a repository with no packages, with folders of its own.
func apt(t *testing.T) ([]string, string) {
	addr := destination(serveHTTP(t, http.FileServerFS(os.DirFS(emptyRepository(t)))))
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o755))
	script(t, `cd "$1"; mkdir -p lists/partial cache/archives/partial etc; : >status; echo "deb [trusted=yes] http://$2/ ./" >etc/list; chmod -R a+rwX .`, dir, addr)
	argv := []string{"apt-get", "update"}
	for _, o := range []string{"Dir::State=" + dir, "Dir::State::lists=" + dir + "/lists", "Dir::State::status=" + dir + "/status", "Dir::Cache=" + dir + "/cache",
		"Dir::Etc::sourcelist=" + dir + "/etc/list", "Dir::Etc::sourceparts=-", "APT::Sandbox::User=root", "Acquire::http::Proxy=false", "APT::Update::Error-Mode=any"} {
		argv = append(argv, "-o", o)
	}
	return argv, "http://" + addr + " ./ Release"
}

func emptyRepository(t *testing.T) string {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Packages"), nil, 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Release"), []byte("Suite: test\nDate: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 0 Packages\n"), 0o644))
	return dir
}

// nginxClient is nginx with an upstream that is redirected. It is asked from
// inside, at a unix socket, and then told to end.
func nginxClient(t *testing.T) ([]string, string) {
	addr := destination(web(t))
	need(t, "curl")
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o777))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "conf"), []byte(strings.ReplaceAll(`
user root; daemon on; pid DIR/pid; error_log DIR/error;
events {}
http {
  access_log off;
  client_body_temp_path DIR/b; proxy_temp_path DIR/p; fastcgi_temp_path DIR/f; uwsgi_temp_path DIR/u; scgi_temp_path DIR/s;
  server { listen unix:DIR/socket; location / { proxy_pass http://`+addr+`; } }
}`, "DIR", dir)), 0o644))
	return []string{"sh", "-euc", `rm -f "$1/socket"; nginx -e "$1/error" -c "$1/conf"; curl -sS --unix-socket "$1/socket" http://there/; nginx -e "$1/error" -c "$1/conf" -s stop
while [ -e "$1/pid" ]; do sleep 0.01; done`, "sh", dir}, "origin says hello\n"
}

func threads(t *testing.T) ([]string, string) {
	addr := destination(web(t))
	return []string{"python3", "-c", `
import sys, urllib.request, concurrent.futures
get = lambda _: urllib.request.urlopen("http://" + sys.argv[1] + "/").read()
with concurrent.futures.ThreadPoolExecutor(16) as pool:
    print(sum(b == b"origin says hello\n" for b in pool.map(get, range(64))))`, addr}, "64\n"
}

// redirected8 is the row of a summary about the redirected port of an origin.
const redirected8 = `to (\[::ffff:)?127\.0\.0\.1\]?:8\d+: redirected to 127\.0\.0\.1:\d+ \(proxy forward\)`

// Programs that people use work, redirected, in every mode.
func TestWorks(t *testing.T) {
	warm(t)
	for _, w := range workers {
		t.Run(w.name, func(t *testing.T) {
			need(t, w.tool)
			argv, want := w.prepare(t)
			for _, mode := range []string{"--isolate=false", "--isolate"} {
				r := calloutd(t, append([]string{"run", mode, "--policy", forward, "--summary", "--"}, argv...)...)
				require.Zero(t, r.code, "%s\n%s\n%s", mode, r.stdout, r.stderr)
				require.Contains(t, r.stdout, want, mode)
				require.Regexp(t, redirected8, r.stderr, mode)
			}
			attached(t, argv, want)
		})
	}
}

// attached runs a command in a cgroup that the policy is attached to.
func attached(t *testing.T, argv []string, want string) {
	cgroup, in := newCgroup(t)
	said, end := background(t, "attached to", "attach", "--policy", forward, "--cgroup", cgroup, "--summary")
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.SysProcAttr = in
	r := finish(t, cmd)
	require.Zero(t, r.code, "%s\n%s", r.stdout, r.stderr)
	require.Contains(t, r.stdout, want)
	end()
	var text strings.Builder
	for line := range said {
		text.WriteString(line + "\n")
	}
	require.Regexp(t, redirected8, text.String())
}

// background runs calloutd until end is called, which waits for it, and returns
// when it has said that it is ready. What it says then is in said.
func background(t *testing.T, ready string, args ...string) (said <-chan string, end func()) {
	t.Helper()
	daemon := exec.CommandContext(t.Context(), "calloutd", args...)
	stderr, err := daemon.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, daemon.Start())
	lines, read := make(chan string, 1<<16), make(chan struct{})
	go func() {
		defer close(read)
		defer close(lines)
		for s := bufio.NewScanner(stderr); s.Scan(); {
			lines <- s.Text()
		}
	}()
	for line, there := <-lines; !strings.Contains(line, ready); line, there = <-lines { // What the proxies did comes before.
		require.True(t, there, "calloutd %v has ended", args)
	}
	return lines, func() {
		require.NoError(t, daemon.Process.Signal(os.Interrupt))
		<-read
		require.NoError(t, daemon.Wait())
	}
}

const (
	routerEnv = "CALLOUTD_TEST_ROUTER" // this test is a router, in a network of its own
	beyond    = "198.51.100.7"         // behind it
)

// They work behind a gateway, whose client is in another network: what it reaches
// is what the policy redirects it to.
func TestWorksBehindAGateway(t *testing.T) {
	if os.Getenv(routerEnv) == "" {
		needGateway(t)
		warm(t)
		again := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestWorksBehindAGateway$", "-test.v")
		again.Env = append(os.Environ(), routerEnv+"=1")
		again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		r := finish(t, again)
		require.Zero(t, r.code, "%s\n%s", r.stdout, r.stderr)
		return
	}
	enter := behind(t)
	p := gatewayPolicy(t)
	for _, mode := range []string{"--transparent=false", "--transparent"} {
		said, end := background(t, "gateway for", "gateway", "--policy", p, "--interface", "in", "--summary", mode)
		for _, w := range workers {
			t.Run(w.name+" "+mode, func(t *testing.T) {
				need(t, w.tool)
				argv, want := w.prepare(t)
				r := finish(t, exec.CommandContext(t.Context(), enter[0], append(enter[1:], argv...)...))
				require.Zero(t, r.code, "%s\n%s", r.stdout, r.stderr)
				require.Contains(t, r.stdout, want)
			})
		}
		end()
		var text strings.Builder
		for line := range said {
			text.WriteString(line + "\n")
		}
		require.Regexp(t, `connections by 1 program, 0 refused\n  198\.18\.0\.2\n +\d+ to 198\.51\.100\.7:84\d\d: redirected to 127\.0\.0\.1:84\d\d\n`, text.String())
	}
}

// behind makes a network whose way out is this one, and returns what enters it.
func behind(t *testing.T) []string {
	inside := exec.Command("sleep", "infinity")
	inside.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	require.NoError(t, inside.Start())
	t.Cleanup(func() { _ = inside.Process.Kill(); _ = inside.Wait() })
	pid := strconv.Itoa(inside.Process.Pid)
	script(t, `ip link set lo up; ip link add in type veth peer name eth0 netns "$1"; ip addr add 198.18.0.1/24 dev in; ip link set in up
nsenter -t "$1" -n sh -euc 'ip link set lo up; ip addr add 198.18.0.2/24 dev eth0; ip link set eth0 up; ip route add default via 198.18.0.1'`, pid)
	return []string{"nsenter", "-t", pid, "-n"}
}

// gatewayPolicy redirects the ports of origins to the origins themselves.
func gatewayPolicy(t *testing.T) string {
	plugin, err := filepath.Abs("../../plugins/proxy-redirect/proxy-redirect.wasm")
	require.NoError(t, err)
	var rules strings.Builder
	for port := 8400; port < 8432; port++ {
		fmt.Fprintf(&rules, "        - {destinations: [%s/32], ports: [\"%d\"], proxy: \"127.0.0.1:%d\", proxy_pid: \"${pid}\"}\n", beyond, port, port)
	}
	return policy(t, fmt.Sprintf(`version: 1
callouts:
  - id: redirect
    wasm: %s
    config:
      rules:
%sfilters:
  - {name: to the origin, layer: ALE_CONNECT_REDIRECT, action: callout, callout: redirect, conditions: [{field: IP_PROTOCOL, value: tcp}]}
`, plugin, rules.String()))
}
