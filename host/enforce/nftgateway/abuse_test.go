//go:build linux

package nftgateway

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce/enforcetest"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
)

const (
	abuseEnv  = "CALLOUTD_TEST_ABUSE"  // how many programs
	hammerEnv = "CALLOUTD_TEST_HAMMER" // where they go
)

// abused keeps programs connecting, which are killed, when this process was started for
// that, and does not return then.
func abused() {
	if n, err := strconv.Atoi(os.Getenv(abuseEnv)); err == nil {
		enforcetest.Abuse(n, func() *exec.Cmd {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), abuseEnv+"=")
			return cmd
		})
		os.Exit(0)
	}
	if to := os.Getenv(hammerEnv); to != "" {
		enforcetest.Hammer(strings.Split(to, ",")...)
	}
}

// abuse lets so many connections be redirected.
func (n *network) abuse(a *enforcetest.Account, processes, connections int, to ...string) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), abuseEnv+"="+strconv.Itoa(processes), hammerEnv+"="+strings.Join(to, ","))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(n.t, err)
	var once sync.Once
	stop := func() { once.Do(func() { in.Close() }) }
	defer stop()
	a.After(connections, stop)
	require.NoError(n.t, n.run(cmd))
}

// Programs behind the gateway that are killed wherever they are leave nothing behind that
// runs here, and nothing in the kernel: no socket, no entry of connection tracking that
// lives for days, no change of the rules; and each decision has an outcome.
func TestAbuse(t *testing.T) {
	for _, transparent := range []bool{false, true} {
		t.Run(map[bool]string{false: "redirect", true: "transparent"}[transparent], func(t *testing.T) {
			router(t, func(n *network) { n.abused(transparent) })
		})
	}
}

func (n *network) abused(transparent bool) {
	t := n.t
	const mail = "198.18.1.2:25"
	processes, connections := enforcetest.AbuseSize()
	to := []string{"tcp4 198.51.100.7:80", "tcp4 " + n.serve("origin"), "tcp4 198.18.1.2:9", "tcp4 " + mail}
	if transparent {
		to = append(to, "udp4 "+mail)
	}
	a := enforcetest.NewAccount(t, fwpm.Filter{ID: 2, Name: "no mail", Layer: fwpm.LayerALEAuthConnectV4, Action: fwp.ActionBlock,
		Conditions: []fwpm.Condition{{Field: fwpm.ConditionIPRemotePort, Match: fwp.MatchEqual, Value: fwp.U16(25)}}})
	start := func() *Gateway {
		g, err := Start(t.Context(), Options{Interfaces: []string{"in"}, ALE: a.ALE, Transparent: transparent, Logf: t.Logf, OnBlocked: a.OnBlocked})
		require.NoError(t, err)
		return g
	}
	g := start()
	n.abuse(a, processes, connections/10, to...)
	rules, before := snap(t), enforcetest.Held(t)
	n.abuse(a, processes, connections, to...)
	before.NoMore(t, int64(4<<20)+int64(connections)*64)
	a.Balance(t)
	require.Equal(t, rules, snap(t))
	require.Eventually(t, func() bool { return len(alive(t)) == 0 }, waitTime, pollTime, "connections are alive that nobody has")
	require.NoError(t, g.Close())

	if transparent { // Flows of datagrams that nobody ends live for two minutes, or as long as the gateway.
		to = append(to, "udp4 "+n.echo(n.outside, "198.18.1.2:0", "origin").String())
	}
	before = enforcetest.Held(t)
	g = start()
	n.abuse(a, processes, 100, to...)
	require.NoError(t, g.Close())
	before.NoMore(t, 4<<20)
}

// alive are the sockets of connections here that have not ended.
func alive(t *testing.T) (all []*netlink.Socket) {
	const timeWait, listen = 6, 10
	sockets, err := netlink.SocketDiagTCP(unix.AF_INET)
	require.NoError(t, err)
	for _, s := range sockets {
		if s.State != timeWait && s.State != listen {
			all = append(all, s)
		}
	}
	return all
}
