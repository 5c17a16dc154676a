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

	"github.com/calloutd/calloutd/host/enforce/cgroupbpf/bpf"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// toProxies sends 203.0.113.0/24 to one proxy and 198.51.100.0/24 to another, and
// permits the rest.
func toProxies(one, two netip.AddrPort) fwps.Callout {
	return fwps.CalloutFunc(func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
		v.Action = fwp.ActionPermit
		a := c.In.Remote.Addr().Unmap()
		for prefix, to := range map[string]netip.AddrPort{"203.0.113.0/24": one, "198.51.100.0/24": two} {
			if netip.MustParsePrefix(prefix).Contains(a) {
				if c.In.Remote.Addr().Is4In6() {
					to = netip.AddrPortFrom(netip.AddrFrom16(to.Addr().As16()), to.Port())
				}
				v.Redirect, v.To, v.TargetPID = true, to, uint32(os.Getpid())
			}
		}
		return nil
	})
}

// datagramSite has toProxies, and blocks the port 25 to this program, which only the
// engine knows.
func datagramSite(t *testing.T, one, two netip.AddrPort) *site {
	exe, err := os.Readlink("/proc/self/exe")
	require.NoError(t, err)
	mail := filter(3, authConnect, fwp.ActionBlock, port(25), condition(fwpm.ConditionALEAppID, fwp.Blob(exe)))
	mail.Name = "no mail"
	return newSite(t, &fwpm.Policy{Callouts: []fwpm.Callout{{ID: "c"}}, Filters: append(askAll(), mail)}, toProxies(one, two))
}

// Datagrams that a callout redirects arrive there, of a socket that is connected and of
// one that is not, and each answer comes from where the program asked.
func TestDatagramsAreRedirected(t *testing.T) {
	one, two := greet(t, "udp4", "127.0.0.1:0", "one", nil), greet(t, "udp4", "127.0.0.1:0", "two", nil)
	origin := greet(t, "udp4", "127.0.0.1:0", "origin", nil)
	s := datagramSite(t, one, two)
	defer s.attach(t).Close()
	const first, second = "203.0.113.10:53", "198.51.100.7:53"
	three := "one from " + first + ", two from " + second + ", origin from " + origin.String()
	require.Equal(t, []string{"one from " + first, "two from " + second, "origin from " + origin.String(), "one from [::ffff:203.0.113.10]:53", three + ", " + three},
		s.run(t, "udp/"+first, "udp/"+second, "udp/"+origin.String(), "mapped/[::ffff:203.0.113.10]:53", "sends/"+first+","+second+","+origin.String()))
}

// The proxy of a flow finds the record of its redirect, and so whom the program asked.
func TestDatagramsHaveTheirRecords(t *testing.T) {
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
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
	const first, second = "203.0.113.10:53", "198.51.100.7:53"
	got := "asked for " + first + " from " + first + ", asked for " + second + " from " + second
	require.Equal(t, []string{"asked for " + first + " from " + first, got + ", " + got}, s.run(t, "udp/"+first, "sends/"+first+","+second))
}

// What is blocked, nobody takes or cannot be carried is not silence.
func TestDatagramsThatGoNowhere(t *testing.T) {
	one := greet(t, "udp4", "127.0.0.1:0", "one", nil)
	s := datagramSite(t, one, one)
	defer s.attach(t).Close()
	require.Equal(t, []string{"EHOSTUNREACH", "ECONNREFUSED", "EACCES"}, s.run(t, "udp/127.0.0.1:25", "udp/127.0.0.1:9", "udp/[2001:db8::7]:53"))
	denials := func() []string { d, _ := s.told(); return d }
	require.Eventually(t, func() bool { return len(denials()) >= 2 }, time.Minute, time.Millisecond)
	require.Len(t, denials(), 2)
	require.Contains(t, denials()[0]+denials()[1], `"no mail"`)
	require.Contains(t, denials()[0]+denials()[1], "for UDP of IPv4")
}

// The flows of many sockets are kept apart.
func TestManyDatagrams(t *testing.T) {
	one, two := greet(t, "udp4", "127.0.0.1:0", "one", nil), greet(t, "udp4", "127.0.0.1:0", "two", nil)
	s := datagramSite(t, one, two)
	defer s.attach(t).Close()
	var args, want []string
	for range 25 {
		args = append(args, "udp/203.0.113.10:53", "sends/198.51.100.7:53")
		want = append(want, "one from 203.0.113.10:53", "two from 198.51.100.7:53, two from 198.51.100.7:53")
	}
	require.Equal(t, want, s.run(t, args...))
}

// Who is not sent here by the kernel is not carried: a program of the cgroup may not
// name calloutd's port, and what is outside has no record there.
func TestDatagramsOfStrangers(t *testing.T) {
	one := greet(t, "udp4", "127.0.0.1:0", "one", nil)
	s := datagramSite(t, one, one)
	a := s.attach(t)
	defer a.Close()
	at := netip.AddrPortFrom(netip.MustParseAddr("127.128.0.1"), swap(a.datagrams.port()))
	mapped := netip.AddrPortFrom(netip.AddrFrom16(at.Addr().As16()), at.Port())
	require.Equal(t, []string{"EACCES", "EACCES, EACCES", "EACCES"}, s.run(t, "udp/"+at.String(), "sends/"+at.String(), "mapped/"+mapped.String()))

	other := netip.MustParseAddrPort("127.0.0.1:1000")
	require.ErrorIs(t, a.datagrams.give(t.Context(), at.Addr(), other, nil), errStranger)
	require.Equal(t, []string{"one from 203.0.113.10:53"}, s.run(t, "udp/203.0.113.10:53"))
	var standIn [4]byte
	require.NoError(t, a.objs.Flows.NextKey(nil, &standIn))
	require.ErrorIs(t, a.datagrams.give(t.Context(), netip.AddrFrom4(standIn), other, nil), errStranger, "the flow is another socket's")
}

// While nobody answers, what needs an answer is refused.
func TestDatagramsFailClosed(t *testing.T) {
	one := greet(t, "udp4", "127.0.0.1:0", "one", nil)
	s := datagramSite(t, one, one)
	a := s.attach(t)
	defer a.Close()
	var c bpf.RedirectConfig
	require.NoError(t, a.objs.Configs.Lookup(uint32(0), &c))
	c.Datagrams = 0
	require.NoError(t, a.objs.Configs.Put(uint32(0), c))
	require.Equal(t, []string{"EACCES", "EACCES, EACCES"}, s.run(t, "udp/203.0.113.10:53", "sends/203.0.113.10:53"))
}
