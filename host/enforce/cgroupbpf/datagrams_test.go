//go:build linux && (amd64 || arm64)

package cgroupbpf

import (
	"context"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce/cgroupbpf/bpf"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// toProxies sends 203.0.113.0/24 and 2001:db8:1::/48 to one proxy, 198.51.100.0/24 and
// 2001:db8:2::/48 to another, and permits the rest.
func toProxies(one, two netip.AddrPort) fwps.Callout {
	return fwps.CalloutFunc(func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
		v.Action = fwp.ActionPermit
		a := c.In.Remote.Addr().Unmap()
		for prefix, to := range map[string]netip.AddrPort{"203.0.113.0/24": one, "198.51.100.0/24": two, "2001:db8:1::/48": one, "2001:db8:2::/48": two} {
			if netip.MustParsePrefix(prefix).Contains(a) {
				if c.In.Remote.Addr().Is6() {
					to = netip.AddrPortFrom(netip.AddrFrom16(to.Addr().As16()), to.Port())
				}
				v.Redirect, v.To, v.TargetPID = true, to, uint32(os.Getpid())
			}
		}
		return nil
	})
}

// The families have the same promises: where two proxies' destinations are, and where
// nobody is.
var datagramFamilies = []struct {
	network, loopback, first, second, here string
	errno                                  string // of what is prohibited
}{
	{"udp4", "127.0.0.1", "203.0.113.10:53", "198.51.100.7:53", "127.0.0.1", "EHOSTUNREACH"},
	{"udp6", "::1", "[2001:db8:1::10]:53", "[2001:db8:2::7]:53", "[::1]", "EACCES"},
}

// datagramSite has toProxies, and blocks the port 25 to this program, which only the
// engine knows.
func datagramSite(t *testing.T, one, two netip.AddrPort) *site {
	exe, err := os.Readlink("/proc/self/exe")
	require.NoError(t, err)
	mail := filter(3, authConnect, fwp.ActionBlock, port(25), condition(fwpm.ConditionALEAppID, fwp.Blob(exe)))
	mail.Name = "no mail"
	mail6 := mail
	mail6.ID, mail6.Layer = 4, fwpm.LayerALEAuthConnectV6
	return newSite(t, &fwpm.Policy{Callouts: []fwpm.Callout{{ID: "c"}}, Filters: append(askAll(), mail, mail6)}, toProxies(one, two))
}

// Datagrams that a callout redirects arrive there, of a socket that is connected and of
// one that is not, and each answer comes from where the program asked.
func TestDatagramsAreRedirected(t *testing.T) {
	for _, f := range datagramFamilies {
		t.Run(f.network, func(t *testing.T) {
			one, two := greet(t, f.network, f.here+":0", "one", nil), greet(t, f.network, f.here+":0", "two", nil)
			origin := greet(t, f.network, f.here+":0", "origin", nil).String()
			s := datagramSite(t, one, two)
			defer s.attach(t).Close()
			three := "one from " + f.first + ", two from " + f.second + ", origin from " + origin
			require.Equal(t, []string{"one from " + f.first, "two from " + f.second, "origin from " + origin, three + ", " + three},
				s.run(t, "udp/"+f.first, "udp/"+f.second, "udp/"+origin, "sends/"+f.first+","+f.second+","+origin))
		})
	}
}

// A socket of IPv6 that asks for an IPv4 address hears of that one.
func TestMappedDatagramsAreRedirected(t *testing.T) {
	one, two := greet(t, "udp4", "127.0.0.1:0", "one", nil), greet(t, "udp4", "127.0.0.1:0", "two", nil)
	s := datagramSite(t, one, two)
	defer s.attach(t).Close()
	const to = "[::ffff:203.0.113.10]:53"
	require.Equal(t, []string{"one from " + to, "one from " + to}, s.run(t, "mapped/"+to, "mapped-sends/"+to))
}

// The proxy of a flow finds the record of its redirect, and so whom the program asked.
func TestDatagramsHaveTheirRecords(t *testing.T) {
	for _, f := range datagramFamilies {
		t.Run(f.network, func(t *testing.T) { testRecords(t, f.network, f.here, f.first, f.second) })
	}
}

func testRecords(t *testing.T, network, here, first, second string) {
	c, err := net.ListenPacket(network, here+":0")
	require.NoError(t, err)
	at := c.LocalAddr().(*net.UDPAddr).AddrPort()
	s := datagramSite(t, at, at)
	sock := s.ale.NewSocket(fwps.Incoming{Protocol: fwps.ProtocolUDP, Local: at, ProcessID: uint32(os.Getpid())})
	done := make(chan struct{})
	t.Cleanup(func() { c.Close(); <-done; sock.Close() })
	go func() {
		defer close(done)
		for b := make([]byte, 64); ; {
			_, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			answer := "no record"
			if _, f, _, err := sock.ReceiveFrom(context.Background(), from.(*net.UDPAddr).AddrPort()); err == nil && len(f.Records) > 0 {
				answer = "asked for " + f.Original.String()
			}
			_, _ = c.WriteTo([]byte(answer), from)
		}
	}()
	defer s.attach(t).Close()
	got := "asked for " + first + " from " + first + ", asked for " + second + " from " + second
	require.Equal(t, []string{"asked for " + first + " from " + first, got + ", " + got}, s.run(t, "udp/"+first, "sends/"+first+","+second))
}

// What is blocked, nobody takes or cannot be carried is not silence.
func TestDatagramsThatGoNowhere(t *testing.T) {
	for _, f := range datagramFamilies {
		t.Run(f.network, func(t *testing.T) {
			one := greet(t, f.network, f.here+":0", "one", nil)
			s := datagramSite(t, one, one)
			defer s.attach(t).Close()
			require.Equal(t, []string{f.errno, "ECONNREFUSED"}, s.run(t, "udp/"+f.here+":25", "udp/"+f.here+":9"))
			denials := func() []string { d, _ := s.told(); return d }
			require.Eventually(t, func() bool { return len(denials()) >= 1 }, time.Minute, time.Millisecond)
			require.Len(t, denials(), 1)
			require.Contains(t, denials()[0], `"no mail"`)
		})
	}
}

// The flows of many sockets are kept apart.
func TestManyDatagrams(t *testing.T) {
	one, two := greet(t, "udp4", "127.0.0.1:0", "one", nil), greet(t, "udp4", "127.0.0.1:0", "two", nil)
	s := datagramSite(t, one, two)
	defer s.attach(t).Close()
	var args, want []string
	for range 25 {
		for _, f := range datagramFamilies[:1] {
			args = append(args, "udp/"+f.first, "sends/"+f.second)
			want = append(want, "one from "+f.first, "two from "+f.second+", two from "+f.second)
		}
	}
	require.Equal(t, want, s.run(t, args...))
}

// Who is not sent here by the kernel is not carried: a program of the cgroup may not
// name an address that stands in for another, and what is outside has no record there.
func TestDatagramsOfStrangers(t *testing.T) {
	for family, f := range datagramFamilies {
		t.Run(f.network, func(t *testing.T) {
			one := greet(t, f.network, f.here+":0", "one", nil)
			s := datagramSite(t, one, one)
			a := s.attach(t)
			defer a.Close()
			d := own(a).datagrams[family]
			at := d.here(netip.MustParseAddr("127.128.0.1"))
			if family == ip6 {
				at = d.here(a.prefix.Addr().Next())
			}
			mapped := netip.AddrPortFrom(netip.AddrFrom16(at.Addr().As16()), at.Port()).String()
			require.Equal(t, []string{"EACCES", "EACCES, EACCES", "EACCES", "EACCES"}, s.run(t, "udp/"+at.String(), "sends/"+at.String(), "mapped/"+mapped, "mapped-sends/"+mapped))

			other := netip.AddrPortFrom(netip.MustParseAddr(f.loopback), 1000)
			require.ErrorIs(t, d.give(at.Addr(), other, nil), errStranger)
			require.Equal(t, []string{"one from " + f.first}, s.run(t, "udp/"+f.first))
			var standIn [16]byte
			require.NoError(t, a.objs.Flows.NextKey(nil, &standIn))
			require.ErrorIs(t, d.give(netip.AddrFrom16(standIn).Unmap(), other, nil), errStranger, "the flow is another socket's")
		})
	}
}

// While nobody answers, what needs an answer is refused.
func TestDatagramsFailClosed(t *testing.T) {
	one := greet(t, "udp4", "127.0.0.1:0", "one", nil)
	s := datagramSite(t, one, one)
	a := s.attach(t)
	defer a.Close()
	var h bpf.RedirectHome
	require.NoError(t, a.objs.Homes.Lookup(netnsCookie(), &h))
	h.Udp4, h.Udp6 = 0, 0
	require.NoError(t, a.objs.Homes.Put(netnsCookie(), h))
	for _, f := range datagramFamilies {
		require.Equal(t, []string{"EACCES", "EACCES, EACCES"}, s.run(t, "udp/"+f.first, "sends/"+f.first))
	}
}

// The addresses of IPv6 that stand in for others are of loopback as long as somebody
// answers there; and without the route to them no datagram leaves for them.
func TestStandInsAreLocal(t *testing.T) {
	one := greet(t, "udp6", "[::1]:0", "one", nil)
	s := datagramSite(t, one, one)
	a := s.attach(t)
	route, _, err := standIns(a.prefix)
	require.NoError(t, err)
	require.Equal(t, []string{"one from [2001:db8:1::10]:53"}, s.run(t, "udp/[2001:db8:1::10]:53"))
	require.NoError(t, netlink.RouteDel(route))
	require.Equal(t, []string{"ENETUNREACH", "ENETUNREACH, ENETUNREACH"}, s.run(t, "udp/[2001:db8:1::10]:53", "sends/[2001:db8:1::10]:53"))
	require.NoError(t, a.Close())
	require.NotContains(t, prefixes(t), a.prefix.String())
}

// What a process has left that was killed the next takes away, and of others nothing.
func TestStandInsOfTheDead(t *testing.T) {
	living, err := addStandIns(newPrefix())
	require.NoError(t, err)
	defer living.remove()
	dead, err := addStandIns(newPrefix())
	require.NoError(t, err)
	require.Subset(t, prefixes(t), []string{living.prefix.String(), dead.prefix.String()})
	require.NoError(t, dead.name.Close())
	one := greet(t, "udp6", "[::1]:0", "one", nil)
	a := datagramSite(t, one, one).attach(t)
	defer a.Close()
	require.Subset(t, prefixes(t), []string{living.prefix.String(), a.prefix.String()})
	require.NotContains(t, prefixes(t), dead.prefix.String())
}

// prefixes are those of the rules that refuse them.
func prefixes(t *testing.T) (all []string) {
	rules, err := netlink.RuleList(unix.AF_INET6)
	require.NoError(t, err)
	for _, r := range rules {
		if r.Dst != nil {
			all = append(all, r.Dst.String())
		}
	}
	return all
}
