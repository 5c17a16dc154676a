package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// twoLinks makes two links, va and vc, on each of which a host has the address fe80::9 and
// answers with the word right or wrong and the port; $1 is a folder.
const twoLinks = `
ip link set lo up
for link in a:b:right c:d:wrong; do
  IFS=: read here there word <<X
$link
X
  unshare -n sleep 600 & echo $! >>"$1/pids"
  peer=$!
  while [ "$(readlink /proc/$peer/ns/net)" = "$(readlink /proc/$$/ns/net)" ]; do :; done
  ip link add v$here type veth peer name v$there netns $peer
  ip link set v$here addrgenmode none
  ip addr add fe80::5/64 dev v$here nodad
  ip link set v$here up
  nsenter -t $peer -n sh -euc "ip link set lo up; ip link set v$there addrgenmode none; ip addr add fe80::9/64 dev v$there nodad; ip link set v$there up"
  mkfifo "$1/$word"
  nsenter -t $peer -n python3 "$1/serve.py" $word >"$1/$word" & echo $! >>"$1/pids"
  read line <"$1/$word"
done
wrong=$(ip -o link show vc | cut -d: -f1)
sed -i "s/WRONG/$wrong/" "$1/policy.yaml"
`

// serveOnLink answers by TCP and UDP.
const serveOnLink = `
import selectors, socket, sys
all = selectors.DefaultSelector()
for port in range(80, 90):
    for kind in socket.SOCK_STREAM, socket.SOCK_DGRAM:
        s = socket.socket(socket.AF_INET6, kind)
        s.bind(("::", port))
        if kind == socket.SOCK_STREAM: s.listen()
        all.register(s, selectors.EVENT_READ, ("%s %d" % (sys.argv[1], port)).encode())
print("ready", flush=True)
while True:
    for key, _ in all.select():
        if key.fileobj.type == socket.SOCK_STREAM:
            c, _ = key.fileobj.accept()
            c.sendall(key.data)
            c.close()
        else:
            _, who = key.fileobj.recvfrom(100)
            key.fileobj.sendto(key.data, who)
`

// connectOnLink says whom it reaches at each port on both links, by TCP and by datagrams of a
// socket that is connected and of one that is not; also where the socket's device says which link.
const connectOnLink = `
import errno, socket, sys
def ask(link, port, how, bound):
    s = socket.socket(socket.AF_INET6, socket.SOCK_STREAM if how == "tcp" else socket.SOCK_DGRAM)
    s.settimeout(60)
    to = "fe80::9", port, 0, 0 if bound else socket.if_nametoindex(link)
    if bound: s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, link.encode())
    if how == "sendto": s.sendto(b"?", to)
    else:
        s.connect(to)
        if how == "tcp" and port == 81: s.sendall(b"GET / HTTP/1.0\r\n\r\n")
        if how == "udp": s.send(b"?")
    if how != "tcp": return s.recv(100).decode()
    return b"".join(iter(lambda: s.recv(1000), b"")).decode()
for asked in sys.argv[1:]:
    how, port, *rest = asked.split(",")
    for link in "va", "vc":
        try: got = ask(link, int(port), how, rest == ["bound"])
        except OSError as e: got = errno.errorcode[e.errno] if e.errno else repr(e)
        print(asked, link, got.split("\r\n\r\n")[-1].strip(), flush=True)
`

const onLinkPolicy = `version: 1
proxies:
  - {id: look, kind: inspect, listen: "[::1]:0"}
  - {id: on, kind: forward, listen: "[::1]:0"}
callouts:
  - id: redirect
    wasm: PLUGIN
    config:
      rules:
        - {destinations: ["fe80::/10"], ports: ["81"], proxy: "${proxy:look}", proxy_pid: "${pid}"}
        - {destinations: ["fe80::/10"], ports: ["82"], proxy: "${proxy:on}", proxy_pid: "${pid}"}
        - {destinations: ["fe80::/10"], ports: ["84"], proxy: "[fe80::9]:85", proxy_pid: "${pid}"}
filters:
  - {name: redirects, layer: ALE_CONNECT_REDIRECT_V6, action: callout, callout: redirect, conditions: [{field: IP_REMOTE_PORT, value: [81, 82, 84, 86]}]}
  - {name: not by that one, layer: ALE_AUTH_CONNECT_V6, action: block, conditions: [{field: IP_REMOTE_PORT, value: 83}, {field: INTERFACE_INDEX, value: WRONG}]}
`

// onLink is a folder with the policy and the programs.
func onLink(t *testing.T) string {
	t.Helper()
	for _, tool := range []string{"ip", "unshare", "nsenter", "python3"} {
		need(t, tool)
	}
	asRoot(t, "needs root for network namespaces")
	warm(t)
	plugin, err := filepath.Abs("../../plugins/proxy-redirect/proxy-redirect.wasm")
	require.NoError(t, err)
	dir := t.TempDir()
	for name, text := range map[string]string{"policy.yaml": strings.Replace(onLinkPolicy, "PLUGIN", plugin, 1), "serve.py": serveOnLink, "connect.py": connectOnLink} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	return dir
}

// connectOn runs a command in the network of the two links, and returns the lines that it prints.
func connectOn(t *testing.T, dir, command string, args ...string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-euc", twoLinks+command+"\nkill $(cat \"$1/pids\")", "sh", dir)
	cmd.Args = append(cmd.Args, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	r := finish(t, cmd)
	require.Zero(t, r.code, r.stderr)
	t.Log(r.stderr)
	return strings.Split(strings.TrimSpace(r.stdout), "\n")
}

// What goes to an address of a link goes on that link: where it is permitted, by way of a
// proxy, and redirected to another address; and a filter knows it by its interface.
func TestRunOnALink(t *testing.T) {
	got := connectOn(t, onLink(t), `calloutd run --policy "$1/policy.yaml" -- python3 "$1/connect.py" tcp,80 udp,80 sendto,80 tcp,80,bound udp,80,bound sendto,80,bound \
  tcp,82 tcp,82,bound tcp,83 udp,83 sendto,83 tcp,83,bound udp,83,bound sendto,83,bound tcp,84 udp,84 sendto,84 tcp,84,bound udp,84,bound tcp,81`)
	looked := got[len(got)-2:]
	require.Equal(t, strings.Split(strings.TrimSpace(`
tcp,80 va right 80
tcp,80 vc wrong 80
udp,80 va right 80
udp,80 vc wrong 80
sendto,80 va right 80
sendto,80 vc wrong 80
tcp,80,bound va right 80
tcp,80,bound vc wrong 80
udp,80,bound va right 80
udp,80,bound vc wrong 80
sendto,80,bound va right 80
sendto,80,bound vc wrong 80
tcp,82 va right 82
tcp,82 vc wrong 82
tcp,82,bound va right 82
tcp,82,bound vc wrong 82
tcp,83 va right 83
tcp,83 vc EACCES
udp,83 va right 83
udp,83 vc EACCES
sendto,83 va right 83
sendto,83 vc EACCES
tcp,83,bound va right 83
tcp,83,bound vc EACCES
udp,83,bound va right 83
udp,83,bound vc EACCES
sendto,83,bound va right 83
sendto,83,bound vc EACCES
tcp,84 va right 85
tcp,84 vc wrong 85
udp,84 va right 85
udp,84 vc wrong 85
sendto,84 va right 85
sendto,84 vc wrong 85
tcp,84,bound va right 85
tcp,84,bound vc wrong 85
udp,84,bound va right 85
udp,84,bound vc wrong 85`), "\n"), got[:len(got)-2])
	requireLooked(t, looked)
}

// requireLooked is about what inspect says of a connection by each link.
func requireLooked(t *testing.T, got []string) {
	t.Helper()
	require.Len(t, got, 2)
	for _, line := range got {
		require.Regexp(t, `"original_destination":"\[fe80::9%\d+\]:81","redirect_state":"redirected-by-self"`, line)
	}
	require.NotEqual(t, got[0], got[1])
}

// In a cgroup so, too. The kernel does not let a datagram of a socket that is not connected
// come to calloutd from a link, nor anything from a device that its socket is bound to: what
// a callout or the interface decides is refused there, and what else is permitted goes on.
func TestAttachOnALink(t *testing.T) {
	cgroup, _ := newCgroup(t)
	got := connectOn(t, onLink(t), `
calloutd attach --policy "$1/policy.yaml" --cgroup "$2" 2>"$1/said" & daemon=$!
until grep -q "attached to" "$1/said"; do kill -0 $daemon; sleep 0.1; done
sh -euc 'echo $$ >"$2/cgroup.procs"; exec python3 "$1/connect.py" tcp,80 udp,80 sendto,80 tcp,82 tcp,83 udp,83 sendto,83 tcp,84 udp,84 sendto,84 tcp,82,bound tcp,81' sh "$1" "$2"
kill -INT $daemon
wait $daemon
grep -o "only a callout.*an address of a link.*" "$1/said" | uniq`, cgroup)
	require.Equal(t, strings.Split(strings.TrimSpace(`
tcp,80 va right 80
tcp,80 vc wrong 80
udp,80 va right 80
udp,80 vc wrong 80
sendto,80 va right 80
sendto,80 vc wrong 80
tcp,82 va right 82
tcp,82 vc wrong 82
tcp,83 va right 83
tcp,83 vc ECONNRESET
udp,83 va EACCES
udp,83 vc EACCES
sendto,83 va EACCES
sendto,83 vc EACCES
tcp,84 va right 85
tcp,84 vc wrong 85
udp,84 va right 85
udp,84 vc wrong 85
sendto,84 va EACCES
sendto,84 vc EACCES
tcp,82,bound va EACCES
tcp,82,bound vc EACCES`), "\n"), got[:len(got)-3])
	requireLooked(t, got[len(got)-3:len(got)-1])
	require.Equal(t, "only a callout or the program's path can decide it, and a datagram for an address of a link cannot be sent to calloutd: connect its socket, or use calloutd run", got[len(got)-1])
}
