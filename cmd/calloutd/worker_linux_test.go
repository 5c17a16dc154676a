package main

import (
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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
	asRoot(t, "sshd lets others log in as root only")
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
