package main

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/enforce/nftgateway"
)

// behindGateway makes a network behind this one, of the process $behind, in which the
// interface of the gateway is called in; $3 is a folder with the pipe said.
const behindGateway = `
ip link set lo up
unshare -n sleep 600 & behind=$!
while [ "$(readlink /proc/$behind/ns/net)" = "$(readlink /proc/$$/ns/net)" ]; do :; done
ip link add in type veth peer name eth0 netns $behind
ip addr add 198.18.0.1/24 dev in
ip link set in up
nsenter -t $behind -n sh -euc 'ip link set lo up; ip addr add 198.18.0.2/24 dev eth0; ip link set eth0 up; ip route add default via 198.18.0.1'
mkfifo "$3/said"
`

func needGateway(t *testing.T) {
	t.Helper()
	if err := enforce.Missing(nftgateway.Probe(), enforce.CommandGateway); err != nil {
		require.Empty(t, os.Getenv("CI"), "CI runs as root: %v", err)
		t.Skip(err)
	}
	for _, tool := range []string{"curl", "ip", "unshare", "nsenter"} {
		need(t, tool)
	}
}

// Who is behind the gateway is redirected as a command under run is. The router
// and who is behind it are network namespaces: no packet leaves.
func TestGateway(t *testing.T) {
	needGateway(t)
	warm(t)
	for _, mode := range []string{"--transparent=false", "--transparent"} {
		cmd := exec.CommandContext(t.Context(), "sh", "-euc", behindGateway+`
calloutd gateway --policy "$1" --interface in "$2" 2>"$3/said" & gateway=$!
read line <"$3/said"
echo "$line"
nsenter -t $behind -n curl -sS http://198.51.100.7/
kill -INT $gateway
wait $gateway
echo "tables: $(calloutd gateway --remove)"
kill $behind
`, "sh", quickstart, mode, t.TempDir())
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		r := finish(t, cmd)
		require.Zero(t, r.code, r.stderr)
		require.Contains(t, r.stdout, "calloutd: gateway for in; interrupt to end\n")
		require.Contains(t, r.stdout, `"original_destination":"198.51.100.7:80"`)
		require.Contains(t, r.stdout, "tables: \n")
	}
}

// A gateway that does not start, for its policy or for the system, leaves the rules
// of one that was killed: who is behind it is refused and not let through.
func TestGatewayThatDoesNotStart(t *testing.T) {
	needGateway(t)
	need(t, "python3")
	warm(t)
	cmd := exec.CommandContext(t.Context(), "sh", "-euc", behindGateway+`
calloutd gateway --policy "$1" --interface in 2>"$3/said" & gateway=$!
read line <"$3/said"
kill -KILL $gateway
wait $gateway || true
printf 'version: 2\n' >"$3/wrong.yaml"
for wrong in "--policy $3/wrong.yaml --interface in" "--policy $1 --interface none" "--policy $1 --interface in --name ="; do
  if calloutd gateway $wrong; then exit 3; fi
  nsenter -t $behind -n python3 -c 'import socket, errno; print(errno.errorcode[socket.socket().connect_ex(("198.51.100.7", 80))])'
done
calloutd gateway --policy "$1" --interface in 2>"$3/said" & gateway=$!
read line <"$3/said"
nsenter -t $behind -n curl -sS http://198.51.100.7/
kill -INT $gateway
wait $gateway
kill $behind
`, "sh", quickstart, "", t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	r := finish(t, cmd)
	require.Zero(t, r.code, r.stderr)
	require.Contains(t, r.stdout, `"original_destination":"198.51.100.7:80"`)
	for _, said := range []string{"version", "interface none", `the name "="`} {
		require.Contains(t, r.stderr, said)
	}
	require.Equal(t, 3, strings.Count(r.stdout, "ECONNREFUSED"), "without the rules there is no route: %s", r.stdout)
}
