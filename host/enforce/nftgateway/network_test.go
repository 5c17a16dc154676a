//go:build linux

package nftgateway

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/enforce/enforcetest"
)

func TestMain(m *testing.M) {
	abused()
	doomedGateway()
	enforcetest.Client()
	os.Exit(m.Run())
}

const routerEnv = "CALLOUTD_TEST_ROUTER"

// router runs the test again in a network of its own, and there calls f with it.
// No packet leaves.
//
//	inside (a network namespace)     router (the test's)       outside (another)
//	198.18.0.2 ───────────────── in 198.18.0.1
//	                             out 198.18.1.1 ─────────────── 198.18.1.2
func router(t *testing.T, f func(*network)) {
	if os.Getenv(routerEnv) == "" {
		if err := enforce.Missing(Probe(), enforce.CommandGateway); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$", "-test.v")
		cmd.Env = append(os.Environ(), routerEnv+"=1", "GORACE=atexit_sleep_ms=0") // or each takes a second
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.NotContains(t, string(out), "--- SKIP")
		t.Logf("%s", out)
		return
	}
	n := &network{t: t}
	n.build()
	f(n)
}

// A network is that of router.
type network struct {
	t               *testing.T
	inside, outside netns.NsHandle
}

func (n *network) build() {
	n.askNobody()
	lo, err := netlink.LinkByName("lo")
	require.NoError(n.t, err)
	require.NoError(n.t, netlink.LinkSetUp(lo))
	n.inside, n.outside = n.namespace(), n.namespace()
	n.wire(n.inside, "in", "198.18.0", "2001:db8:18:0")
	n.wire(n.outside, "out", "198.18.1", "2001:db8:18:1")
	for _, gateway := range []string{"198.18.1.2", "2001:db8:18:1::2"} {
		require.NoError(n.t, netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(gateway)}))
	}
	for _, key := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		require.NoError(n.t, os.WriteFile("/proc/sys/net/"+key, []byte("1"), 0o644))
	}
}

// namespace makes one, with loopback.
func (n *network) namespace() (ns netns.NsHandle) {
	onThread(func() {
		var err error
		ns, err = netns.New()
		require.NoError(n.t, err)
		n.askNobody()
		lo, err := netlink.LinkByName("lo")
		require.NoError(n.t, err)
		require.NoError(n.t, netlink.LinkSetUp(lo))
	})
	n.t.Cleanup(func() { ns.Close() })
	return ns
}

// askNobody lets interfaces have their link-local addresses at once. Until they do, for up
// to two seconds, a router cannot look for the neighbours that it forwards to, and in three
// it gives up.
func (n *network) askNobody() {
	for _, key := range []string{"all", "default"} {
		require.NoError(n.t, os.WriteFile("/proc/sys/net/ipv6/conf/"+key+"/accept_dad", []byte("0"), 0o644))
	}
}

// onThread runs f on a thread that ends with it.
func onThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // Never unlocked: nobody else gets it.
		f()
	}()
	<-done
}

// at runs f in a namespace.
func (n *network) at(ns netns.NsHandle, f func()) {
	onThread(func() {
		require.NoError(n.t, netns.Set(ns))
		f()
	})
}

// wire connects a namespace with the router's interface: the router is .1 and ::1,
// the other .2 and ::2.
func (n *network) wire(ns netns.NsHandle, name, v4, v6 string) {
	require.NoError(n.t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "-peer"}))
	here, err := netlink.LinkByName(name)
	require.NoError(n.t, err)
	there, err := netlink.LinkByName(name + "-peer")
	require.NoError(n.t, err)
	require.NoError(n.t, netlink.LinkSetNsFd(there, int(ns)))
	address := func(l netlink.Link, last int) {
		for _, a := range []string{fmt.Sprintf("%s.%d/24", v4, last), fmt.Sprintf("%s::%d/64", v6, last)} {
			addr, err := netlink.ParseAddr(a)
			require.NoError(n.t, err)
			addr.Flags = unix.IFA_F_NODAD // Usable at once.
			require.NoError(n.t, netlink.AddrAdd(l, addr))
		}
		require.NoError(n.t, netlink.LinkSetUp(l))
	}
	address(here, 1)
	n.at(ns, func() {
		there, err := netlink.LinkByName(name + "-peer")
		require.NoError(n.t, err)
		address(there, 2)
		for _, gateway := range []string{v4 + ".1", v6 + "::1"} {
			require.NoError(n.t, netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(gateway)}))
		}
	})
}

// run runs a command inside.
func (n *network) run(cmd *exec.Cmd) error {
	var err error
	n.at(n.inside, func() { err = cmd.Start() })
	if err != nil {
		return err
	}
	return cmd.Wait()
}

// dial connects from a namespace.
func (n *network) dial(ns netns.NsHandle, network, to string) (c net.Conn, err error) {
	n.at(ns, func() { c, err = net.Dial(network, to) })
	return c, err
}
