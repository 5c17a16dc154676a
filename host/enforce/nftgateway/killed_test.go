//go:build linux

package nftgateway

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/nftables"
	mdlayher "github.com/mdlayher/netlink"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

const gatewayEnv = "CALLOUTD_TEST_GATEWAY" // transparent or not

// doomedGateway is a gateway until somebody kills it, when this process was started for that, and
// does not return then.
func doomedGateway() {
	mode := os.Getenv(gatewayEnv)
	if mode == "" {
		return
	}
	_, err := Start(context.Background(), Options{Interfaces: []string{"in"}, ALE: permitAll(), Transparent: mode == "transparent", Logf: func(string, ...any) {}})
	fmt.Println("started:", err)
	select {}
}

// gateway starts one that is a process of its own.
func (n *network) gateway(transparent bool) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), gatewayEnv+"="+map[bool]string{true: "transparent", false: "redirect"}[transparent])
	out, err := cmd.StdoutPipe()
	require.NoError(n.t, err)
	require.NoError(n.t, cmd.Start())
	n.t.Cleanup(func() { n.kill(cmd) })
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(n.t, err)
	require.Equal(n.t, "started: <nil>\n", line)
	return cmd
}

// kill ends a process as nobody can prepare for.
func (n *network) kill(cmd *exec.Cmd) {
	if cmd.ProcessState == nil {
		require.NoError(n.t, cmd.Process.Kill())
		_ = cmd.Wait()
	}
}

// What is watched counts what comes from who is inside by another way than a gateway's.
type watched struct {
	tcp, udp  []string // where it listens, for both families
	undecided atomic.Int64
}

func (n *network) watch() *watched {
	w := new(watched)
	count := func(from net.Addr) {
		if strings.HasPrefix(from.String(), "198.18.0.") || strings.HasPrefix(from.String(), "[2001:db8:18:0:") {
			w.undecided.Add(1)
		}
	}
	for _, at := range []string{"198.18.1.2:0", "[2001:db8:18:1::2]:0"} {
		var l net.Listener
		var u *net.UDPConn
		n.at(n.outside, func() {
			var err error
			l, err = net.Listen("tcp", at)
			require.NoError(n.t, err)
			u, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(l.Addr().(*net.TCPAddr).AddrPort()))
			require.NoError(n.t, err)
		})
		n.t.Cleanup(func() { l.Close(); u.Close() })
		w.tcp, w.udp = append(w.tcp, l.Addr().String()), append(w.udp, u.LocalAddr().String())
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				count(c.RemoteAddr())
				go func() { _, _ = io.Copy(c, c); c.Close() }()
			}
		}()
		go func() {
			for b := make([]byte, 64); ; {
				size, from, err := u.ReadFromUDP(b)
				if err != nil {
					return
				}
				count(from)
				_, _ = u.WriteToUDP(b[:size], from)
			}
		}()
	}
	return w
}

// echoes is whether something comes back, and what the program is told if not.
func echoes(c net.Conn, patience time.Duration) error {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return err
}

// reach connects anew, or sends.
func (n *network) reach(network, to string, patience time.Duration) (c net.Conn, err error) {
	n.at(n.inside, func() { c, err = (&net.Dialer{Timeout: patience}).Dial(network, to) })
	if err != nil {
		return nil, err
	}
	n.t.Cleanup(func() { c.Close() })
	return c, echoes(c, patience)
}

// killed is a network whose gateway carried something and was killed; before is what happened
// until then.
func (n *network) killed(transparent bool, before func(gateway *exec.Cmd)) (*watched, []net.Conn) {
	w := n.watch()
	cmd := n.gateway(transparent)
	var carried []net.Conn
	for i := range w.tcp {
		c, err := n.reach("tcp", w.tcp[i], waitTime)
		require.NoError(n.t, err)
		carried = append(carried, c)
		if transparent {
			c, err := n.reach("udp", w.udp[i], waitTime)
			require.NoError(n.t, err)
			carried = append(carried, c)
		}
	}
	before(cmd)
	n.kill(cmd)
	return w, carried
}

// Of a gateway that is killed nothing goes on undecided: what it carried ends, what is new is
// refused, and the next one carries again.
func TestKilled(t *testing.T) {
	both(t, func(n *network, transparent bool) {
		w, carried := n.killed(transparent, func(*exec.Cmd) {})
		for range 2 { // Who is told may go on all the same.
			for _, c := range carried {
				require.Error(t, echoes(c, waitTime))
			}
		}
		for i := range w.tcp {
			_, err := n.reach("tcp", w.tcp[i], waitTime)
			require.Error(t, err)
			require.False(t, errors.Is(err, os.ErrDeadlineExceeded), "it is told at once")
			_, err = n.reach("udp", w.udp[i], waitTime)
			require.Error(t, err)
			require.False(t, errors.Is(err, os.ErrDeadlineExceeded), "it is told at once")
		}
		next := n.gateway(transparent)
		for i := range w.tcp {
			_, err := n.reach("tcp", w.tcp[i], waitTime)
			require.NoError(t, err)
			_, err = n.reach("udp", w.udp[i], waitTime)
			require.Equal(t, transparent, err == nil, err)
		}
		for _, c := range carried {
			if c.LocalAddr().Network() == "tcp" {
				require.Error(t, echoes(c, waitTime), "it does not come back")
			}
		}
		require.Zero(t, w.undecided.Load())
		n.kill(next)
		require.NoError(t, Remove(""))
		tables, rules, routes := state(t)
		require.Empty(t, tables)
		require.Zero(t, rules+routes)
	})
}

// One that is killed while its rules are away leaves its guard: what it carried and what is new
// goes nowhere, until the next one carries again or the guard is removed.
func TestKilledWhileTheRulesAreAway(t *testing.T) {
	both(t, func(n *network, transparent bool) {
		if !n.keepsTables() {
			return
		}
		w, carried := n.killed(transparent, func(gateway *exec.Cmd) {
			require.NoError(t, gateway.Process.Signal(unix.SIGSTOP)) // It puts nothing back.
			c, err := nftables.New()
			require.NoError(t, err)
			c.FlushRuleset()
			require.NoError(t, c.Flush())
		})
		const short = 100 * time.Millisecond // Nobody is told.
		for _, c := range carried {
			require.Error(t, echoes(c, short))
		}
		for i := range w.tcp {
			for network, to := range map[string]string{"tcp": w.tcp[i], "udp": w.udp[i]} {
				_, err := n.reach(network, to, short)
				require.Error(t, err)
			}
		}
		require.Zero(t, w.undecided.Load())

		_, err := Start(t.Context(), Options{Interfaces: []string{"in"}, Name: "other", ALE: permitAll()})
		require.ErrorContains(t, err, "interface in is one of the gateway with the table calloutd: one gateway decides an interface; if that one has died, calloutd gateway --remove")

		next := n.gateway(transparent)
		for i := range w.tcp {
			_, err := n.reach("tcp", w.tcp[i], waitTime)
			require.NoError(t, err)
		}
		require.Zero(t, w.undecided.Load())
		n.kill(next)

		o := Options{Interfaces: []string{"in"}}
		require.NoError(t, uninstall(&o))
		_, err = n.reach("tcp", w.tcp[0], short)
		require.Error(t, err, "the guard of the next one is there")
		require.NoError(t, Remove(""))
		tables, rules, routes := state(t)
		require.Empty(t, tables)
		require.Zero(t, rules+routes)
		_, err = n.reach("tcp", w.tcp[0], waitTime)
		require.NoError(t, err)
		require.EqualValues(t, 1, w.undecided.Load(), "the way exists")
	})
}

// keepsTables reports whether the kernel keeps a table whose owner has gone.
func (n *network) keepsTables() bool {
	const name = "calloutd_test_keeps"
	c, err := mdlayher.Dial(unix.NETLINK_NETFILTER, nil)
	require.NoError(n.t, err)
	err = claim(c, name, ownedTable|persistentTable, mdlayher.Excl)
	require.NoError(n.t, c.Close())
	if err != nil {
		n.t.Logf("a table goes with its owner: the kernel is older than 6.9: %v", err)
		return false
	}
	require.NoError(n.t, remove(name, nftables.TableFamilyINet))
	return true
}

// What a killed gateway leaves is anybody's to take away, and then all goes through.
func TestKilledGatewayIsFlushed(t *testing.T) {
	both(t, func(n *network, transparent bool) {
		w, _ := n.killed(transparent, func(*exec.Cmd) {})
		c, err := nftables.New()
		require.NoError(t, err)
		c.FlushRuleset()
		require.NoError(t, c.Flush())
		tables, _, _ := state(t)
		require.Empty(t, tables)
		_, err = n.reach("tcp", w.tcp[0], waitTime)
		require.NoError(t, err)
		require.EqualValues(t, 1, w.undecided.Load())
		n.kill(n.gateway(transparent))
		_, err = n.reach("tcp", w.tcp[0], waitTime)
		require.Error(t, err)
		require.NoError(t, Remove(""))
	})
}

// The guard that a dead gateway left is the next one's, with what that needs.
func TestGuardOfADeadGatewayIsTakenOver(t *testing.T) {
	router(t, func(n *network) {
		w := n.watch()
		n.kill(n.gateway(false))
		o := Options{Interfaces: []string{"in", "out"}, ALE: permitAll(), Transparent: true, Logf: t.Logf}
		c, err := nftables.New()
		require.NoError(t, err)
		g, err := Start(t.Context(), o)
		require.NoError(t, err)
		chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyINet)
		require.NoError(t, err)
		var names []string
		for _, ch := range chains {
			if ch.Table.Name == "calloutd"+guardSuffix {
				names = append(names, ch.Name)
			}
		}
		require.Equal(t, []string{"drop"}, names, "with TPROXY it translates nothing")
		require.True(t, g.State().Guard)
		_, err = n.reach("tcp", w.tcp[0], waitTime)
		require.NoError(t, err)
		require.NoError(t, g.Close())
		tables, _, _ := state(t)
		require.Empty(t, tables)
	})
}
