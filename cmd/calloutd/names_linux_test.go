package main

import (
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"
)

// zone answers for some names, whoever asks.
func zone(t *testing.T, hosts map[string][4]byte) string {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	t.Cleanup(func() { pc.Close(); <-done })
	go func() {
		defer close(done)
		for b := make([]byte, 4096); ; {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(b[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
			if a, ok := hosts[q.Name.String()]; ok && q.Type == dnsmessage.TypeA {
				m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1}, Body: &dnsmessage.AResource{A: a}}}
			}
			if out, err := m.Pack(); err == nil {
				_, _ = pc.WriteTo(out, from)
			}
		}
	}()
	return pc.LocalAddr().String()
}

// policyByName has what is asked for at port 53 resolved, the web of one address at a proxy, and
// permits of TCP what filters say.
func policyByName(t *testing.T, resolver, filters string) string {
	plugin, err := filepath.Abs("../../plugins/proxy-redirect/proxy-redirect.wasm")
	require.NoError(t, err)
	return policy(t, fmt.Sprintf(`version: 1
proxies:
  - {id: names, kind: dns, address: %q}
  - {id: look, kind: inspect}
callouts:
  - id: redirect
    wasm: %s
    config:
      rules:
        - {destinations: [0.0.0.0/0], ports: ["53"], proxy: "${proxy:names}", proxy_pid: "${pid}"}
        - {destinations: [198.51.100.7/32], ports: ["80"], proxy: "${proxy:look}", proxy_pid: "${pid}"}
filters:
  - {name: redirects, layer: ALE_CONNECT_REDIRECT_V4, action: callout, callout: redirect}
%s  - {name: nothing else, layer: ALE_AUTH_CONNECT_V4, action: block, weight: 1, conditions: [{field: IP_PROTOCOL, value: tcp}]}
`, resolver, plugin, filters))
}

// A policy speaks of names: what a program reaches by a name that is permitted,
// and by no other, and by no number. A name that is bound to this host again (DNS
// rebinding) is none.
func TestPolicyByName(t *testing.T) {
	warm(t)
	need(t, "curl")
	resolver := zone(t, map[string][4]byte{"app.example.": {198, 51, 100, 7}, "other.example.": {198, 51, 100, 8}, "evil.app.example.": {127, 0, 0, 1}})
	p := policyByName(t, resolver, `  - {name: by name, layer: ALE_AUTH_CONNECT_V4, action: permit, weight: 9, conditions: [{field: PEER_NAME, value: [app.example, evil.app.example]}]}
`)
	for _, mode := range []string{"--isolate=false", "--isolate"} {
		get := func(url string) result {
			return calloutd(t, "run", mode, "--policy", p, "--summary", "--", "curl", "-4", "-sS", "--noproxy", "*", url)
		}
		r := get("http://app.example/")
		require.Zero(t, r.code, r.stderr)
		require.Contains(t, r.stdout, `"original_destination":"198.51.100.7:80"`)
		require.Contains(t, r.stderr, "to app.example (198.51.100.7:80): redirected to")

		for url, to := range map[string]string{"http://other.example/": "198.51.100.8:80", "http://198.51.100.9/": "198.51.100.9:80", "http://evil.app.example/": "127.0.0.1:80"} {
			r = get(url)
			require.Equal(t, 7, r.code, "%s: curl's code for a failed connect: %s", url, r.stderr)
			require.Contains(t, r.stderr, `by filter 3 "nothing else"`)
			require.Contains(t, r.stderr, "to "+to+": blocked")
		}
	}
}

// names.py answers for the names of a zone at 127.0.0.1:5300, or asks for one as a program
// behind a gateway does.
const namesPy = `
import socket, struct, sys
zone = dict(x.split("=") for x in sys.argv[2:] if "=" in x)
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
if sys.argv[1] == "serve":
    s.bind(("127.0.0.1", 5300))
    print("serves", flush=True)
    while True:
        q, who = s.recvfrom(4096)
        labels, at = [], 12
        while q[at]:
            labels.append(q[at + 1:at + 1 + q[at]].decode()); at += 1 + q[at]
        a = zone.get(".".join(labels))
        s.sendto(q[:2] + struct.pack(">HHHHH", 0x8180, 1, int(a is not None), 0, 0) + q[12:at + 5] +
            (b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + socket.inet_aton(a) if a else b""), who)
s.settimeout(20)
for name in sys.argv[2:]:
    q = b"\x12\x34" + struct.pack(">HHHHH", 0x100, 1, 0, 0, 0) + b"".join(bytes([len(l)]) + l.encode() for l in name.split(".")) + b"\0\0\1\0\1"
    s.sendto(q, ("192.0.2.53", 53))
    print(name, socket.inet_ntoa(s.recv(4096)[-4:]))
`

// Behind a gateway names are of the host that asked: another one that asks for a name of its
// own, which its owner has sent to the same address, does not have that called so for others.
func TestNamesBehindAGatewayAreOfWhoAsked(t *testing.T) {
	needGateway(t)
	need(t, "python3")
	warm(t)
	dir := t.TempDir()
	p := policyByName(t, "127.0.0.1:5300", `  - {name: by name, layer: ALE_AUTH_CONNECT_V4, action: permit, weight: 9, conditions: [{field: PEER_NAME, value: [app.example, own.example]}]}
  - {name: bad, layer: ALE_AUTH_CONNECT_V4, action: block, weight: 12, conditions: [{field: PEER_NAME, value: bad.example}]}
`)
	cmd := exec.CommandContext(t.Context(), "sh", "-euc", behindGateway+`
resolver= gateway=
unshare -n sleep 600 & attacker=$!
trap 'cat "$3/log"; kill $behind $attacker $resolver $gateway' EXIT
while [ "$(readlink /proc/$attacker/ns/net)" = "$(readlink /proc/$$/ns/net)" ]; do :; done
ip link add in2 type veth peer name eth0 netns $attacker
ip addr add 198.18.1.1/24 dev in2
ip link set in2 up
nsenter -t $attacker -n sh -euc 'ip link set lo up; ip addr add 198.18.1.2/24 dev eth0; ip link set eth0 up; ip route add default via 198.18.1.1'
cat >"$3/names.py"
mkfifo "$3/serves"
python3 "$3/names.py" serve app.example=198.51.100.7 evil.example=198.51.100.7 bad.example=198.51.100.8 own.example=198.51.100.8 >"$3/serves" & resolver=$!
read line <"$3/serves"
calloutd gateway --policy "$1" --interface in --interface in2 --transparent 2>"$3/said" & gateway=$!
read line <"$3/said"
cat <"$3/said" >"$3/log" &
victims() { nsenter -t $behind -n "$@"; }
attackers() { nsenter -t $attacker -n "$@"; }
victims python3 "$3/names.py" ask app.example
attackers python3 "$3/names.py" ask evil.example
victims curl -sS http://198.51.100.7/
attackers curl -sS http://198.51.100.7/ || echo "attacker: $?"
attackers python3 "$3/names.py" ask app.example evil.example
victims curl -sS http://198.51.100.7/
victims python3 "$3/names.py" ask bad.example own.example
victims curl -sS http://198.51.100.8/ || echo "by another name: $?"
kill -INT $gateway
wait $gateway
gateway=
`, "sh", p, "", dir)
	cmd.Stdin = strings.NewReader(namesPy)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	r := finish(t, cmd)
	require.Zero(t, r.code, r.stderr+r.stdout)
	require.Equal(t, 2, strings.Count(r.stdout, `"original_destination":"198.51.100.7:80"`), r.stdout+r.stderr)
	require.Regexp(t, `attacker: (7|55|56)`, r.stdout, "what it asked for is called evil.example")
	require.Regexp(t, `by another name: (7|55|56)`, r.stdout)
	require.Regexp(t, `198.51.100.8:80 blocked .* by filter 3 "bad" .*: the policy blocks it, as the address is also called bad.example`, r.stdout)
}
