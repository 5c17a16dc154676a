//go:build linux

package nftgateway

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/google/nftables"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/enforce/enforcetest"
	"github.com/calloutd/calloutd/host/redirect/memstore"
)

// backend is a gateway between the suite's programs and its servers.
type backend struct {
	*network
	transparent bool
}

func (b backend) Run(ctx context.Context, s enforcetest.Site, cmd *exec.Cmd) error {
	g, err := Start(ctx, Options{Interfaces: []string{"in"}, Transparent: b.transparent, ALE: s.ALE, Logf: s.Logf, OnBlocked: s.OnBlocked})
	if err != nil {
		return err
	}
	return errors.Join(b.network.run(cmd), g.Close())
}

func (b backend) Place(network string, listen func(host string)) {
	host := "198.18.1.2"
	if strings.HasSuffix(network, "6") {
		host = "2001:db8:18:1::2"
	}
	b.at(b.outside, func() { listen(host) })
}

// Abilities: addresses of TCP are all that it knows.
func (backend) Abilities() enforcetest.Abilities { return enforcetest.Abilities{} }

func TestSuiteRedirect(t *testing.T) {
	router(t, func(n *network) { enforcetest.Run(t, backend{n, false}) })
}

func TestSuiteTransparent(t *testing.T) {
	router(t, func(n *network) { enforcetest.Run(t, backend{n, true}) })
}

// serve answers with a word outside.
func (n *network) serve(word string) string { return n.serveAt("tcp4", "198.18.1.2:0", word) }

func (n *network) serveAt(network, at, word string) string {
	return n.serveIn(n.outside, network, at, word)
}

func (n *network) serveIn(ns netns.NsHandle, network, at, word string) string {
	var l net.Listener
	n.at(ns, func() {
		var err error
		l, err = net.Listen(network, at)
		require.NoError(n.t, err)
	})
	done := make(chan struct{})
	n.t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, word)
			c.Close()
		}
	}()
	return l.Addr().String()
}

func permitAll() *ale.Enforcer {
	return ale.New(ale.Options{Classifier: host.New(host.Options{}), Store: memstore.New(0)})
}

// state is what a gateway could have left: tables, rules and routes.
func state(t *testing.T) (tables []string, rules, routes int) {
	c, err := nftables.New()
	require.NoError(t, err)
	all, err := c.ListTables()
	require.NoError(t, err)
	for _, table := range all {
		tables = append(tables, table.Name)
	}
	list, err := netlink.RuleList(unix.AF_UNSPEC)
	require.NoError(t, err)
	o := Options{}
	for _, r := range list {
		if r.Mark == o.mark() {
			rules++
		}
	}
	for family := range everything {
		found, err := netlink.RouteListFiltered(family, &netlink.Route{Table: int(o.mark())}, netlink.RT_FILTER_TABLE)
		require.NoError(t, err)
		routes += len(found)
	}
	return tables, rules, routes
}

func get(c net.Conn, err error) (string, error) {
	if err != nil {
		return "", err
	}
	defer c.Close()
	b, err := io.ReadAll(c)
	return string(b), err
}

// What a gateway makes is gone when it is closed, and what one that died has left
// refuses connections until the next takes it over.
func TestLeavesNothing(t *testing.T) {
	router(t, func(n *network) {
		origin := n.serve("origin")
		defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
		for _, transparent := range []bool{false, true} {
			o := Options{Interfaces: []string{"in"}, ALE: permitAll(), Transparent: transparent, Logf: t.Logf}
			g, err := Start(t.Context(), o)
			require.NoError(t, err)
			got, err := get(n.dial(n.inside, "tcp4", origin))
			require.NoError(t, err)
			require.Equal(t, "origin", got)
			_, err = Start(t.Context(), o)
			require.ErrorContains(t, err, "another gateway with the table calloutd is running here")
			other := o
			other.Name = "other"
			other.Interfaces = []string{"out"}
			g2, err := Start(t.Context(), other)
			require.NoError(t, err)
			require.NoError(t, g2.Close())

			g.die(t)
			_, err = get(n.dial(n.inside, "tcp4", origin))
			require.Error(t, err)

			g, err = Start(t.Context(), o)
			require.NoError(t, err)
			got, err = get(n.dial(n.inside, "tcp4", origin))
			require.NoError(t, err)
			require.Equal(t, "origin", got)
			require.NoError(t, g.Close())
			tables, rules, routes := state(t)
			require.Empty(t, tables)
			require.Zero(t, rules)
			require.Zero(t, routes)

			// One that died is removed without a new one.
			require.NoError(t, install(&o, ports{tcp: families[uint16]{1, 1}}, &site{names: o.Interfaces}))
			require.NoError(t, Remove(""))
			require.NoError(t, Remove(""), "also if there is nothing")
			tables, _, _ = state(t)
			require.Empty(t, tables)
		}
	})
}

// What nobody decided does not go through; what is none of its business does.
func TestWhatItLeavesAlone(t *testing.T) {
	for _, transparent := range []bool{false, true} {
		t.Run(map[bool]string{false: "redirect", true: "transparent"}[transparent], func(t *testing.T) {
			router(t, func(n *network) { leavesAlone(n, transparent) })
		})
	}
}

func leavesAlone(n *network, transparent bool) {
	t := n.t
	var mu sync.Mutex
	var logged []string
	g, err := Start(t.Context(), Options{Interfaces: []string{"in"}, ALE: permitAll(), Transparent: transparent, Logf: func(f string, a ...any) {
		mu.Lock()
		defer mu.Unlock()
		logged = append(logged, f)
	}})
	require.NoError(t, err)
	defer g.Close()

	// What is of no protocol that it decides is refused, and the program told: a
	// datagram, where addresses are translated, and a ping.
	refused := []string{"ip4:icmp"}
	if !transparent {
		refused = append(refused, "udp4")
	}
	for _, network := range refused {
		to := map[string]string{"udp4": "198.18.1.2:9", "ip4:icmp": "198.18.1.2"}[network]
		c, err := n.dial(n.inside, network, to)
		require.NoError(t, err)
		defer c.Close()
		_, err = c.Write([]byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0}) // an echo request
		require.NoError(t, err)
		_, err = c.Read(make([]byte, 64))
		require.ErrorIs(t, err, unix.EHOSTUNREACH, network)
	}

	// A connection to the router itself is not a connection through it.
	l, err := net.Listen("tcp4", "198.18.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	here, err := n.dial(n.inside, "tcp4", l.Addr().String())
	require.NoError(t, err)
	defer here.Close()
	accepted, err := l.Accept()
	require.NoError(t, err)
	require.Equal(t, "198.18.0.2", accepted.RemoteAddr().(*net.TCPAddr).IP.String())
	accepted.Close()

	// One from outside to who is inside goes through, and its answers.
	var inside net.Listener
	n.at(n.inside, func() { inside, err = net.Listen("tcp4", "198.18.0.2:0") })
	require.NoError(t, err)
	defer inside.Close()
	served := make(chan struct{})
	go func() {
		defer close(served)
		if c, err := inside.Accept(); err == nil {
			_, _ = io.WriteString(c, "from inside")
			c.Close()
		}
	}()
	got, err := get(n.dial(n.outside, "tcp4", inside.Addr().String()))
	require.NoError(t, err)
	require.Equal(t, "from inside", got)
	<-served

	// One to the gateway's own port is refused, and told.
	port := g.listen[0].Addr().(*net.TCPAddr).AddrPort().Port()
	_, err = get(n.dial(n.inside, "tcp4", netip.AddrPortFrom(netip.MustParseAddr("198.18.0.1"), port).String()))
	require.Error(t, err)
	require.NoError(t, g.Close())
	require.Contains(t, logged, "nftgateway: connection from %s to %s was not sent here by the rules")
}

func TestOptions(t *testing.T) {
	for want, o := range map[string]Options{
		"nftgateway: no interface is named":                                               {},
		`nftgateway: the name "a b": expected up to 32 letters, digits and underscores`:   {Interfaces: []string{"lo"}, Name: "a b"},
		`nftgateway: the interface "sixteen-letters-": expected a name of up to 15 bytes`: {Interfaces: []string{"sixteen-letters-"}},
	} {
		o.ALE = permitAll()
		_, err := Start(t.Context(), o)
		require.EqualError(t, err, want)
	}
	_, err := Start(t.Context(), Options{ALE: permitAll(), Interfaces: []string{"no-such"}})
	require.ErrorContains(t, err, "nftgateway: interface no-such: ")
	require.NotEqual(t, (&Options{}).mark(), (&Options{Name: "other"}).mark())
}

// Somebody without the right is told so once, and what helps.
func TestWithoutPrivilege(t *testing.T) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // The thread that has no capabilities ends with the goroutine.
		head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if !assert.NoError(t, unix.Capset(&head, &none[0])) {
			return
		}
		assert.ErrorIs(t, enforce.Missing(Probe(), enforce.CommandGateway), enforce.ErrNotSupported)
		for _, transparent := range []bool{false, true} {
			_, err := Start(t.Context(), Options{ALE: permitAll(), Interfaces: []string{"lo"}, Name: "unprivileged", Transparent: transparent})
			saysWhatHelps(t, err)
		}
		saysWhatHelps(t, Remove("unprivileged"))
	}()
	<-done
}

// saysWhatHelps checks that an error is one line that says what helps.
func saysWhatHelps(t *testing.T, err error) {
	assert.ErrorIs(t, err, enforce.ErrNotSupported)
	assert.Regexp(t, `^a gateway of this user is not supported on this system: nftgateway: [^\n]*operation not permitted: run it as root, or with CAP_NET_ADMIN$`, err.Error())
}

// That it takes its rules away, and hears of that, comes together with its end.
func TestClosedGatewayHasNoDescriptors(t *testing.T) {
	router(t, func(n *network) {
		o := Options{Interfaces: []string{"in"}, ALE: permitAll(), Transparent: true, Logf: t.Logf}
		again := func() {
			g, err := Start(t.Context(), o)
			require.NoError(t, err)
			require.NoError(t, g.Close())
		}
		again() // What a process has once and for all, it has now.
		before := enforcetest.Held(t)
		for range 40 {
			again()
		}
		before.NoMore(t, 4<<20)
	})
}
