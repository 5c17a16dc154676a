package main

import (
	"os"
	"os/exec"
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
