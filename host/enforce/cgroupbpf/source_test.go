//go:build linux && (amd64 || arm64)

package cgroupbpf

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce/enforcetest"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// arrivals are where datagrams came from.
var arrivals = make(chan netip.Addr, 16)

func init() {
	// two ways: a network with two addresses of each family, and routes by each; all of it arrives here.
	bypasses["two ways"] = func(netip.AddrPort) string {
		for _, line := range []string{
			"link set lo up", "link add va type veth peer name vb", "link set va up", "link set vb up",
			"addr add 192.0.2.1/24 dev va", "addr add 198.51.100.1/24 dev vb",
			"addr add 2001:db8:1::1/64 dev va nodad", "addr add 2001:db8:2::1/64 dev vb nodad",
			"route add local 203.0.113.0/25 dev lo src 192.0.2.1", "route add local 203.0.113.128/25 dev lo src 198.51.100.1",
			"-6 route add local 2001:db8:a::/64 dev lo src 2001:db8:1::1", "-6 route add local 2001:db8:b::/64 dev lo src 2001:db8:2::1",
		} {
			if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
				return line + ": " + string(out)
			}
		}
		l, err := net.Listen("tcp", ":4000")
		if err != nil {
			return err.Error()
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = fmt.Fprint(c, c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap())
				c.Close()
			}
		}()
		u, err := net.ListenUDP("udp", &net.UDPAddr{Port: 4000})
		if err != nil {
			return err.Error()
		}
		go func() {
			for b := make([]byte, 64); ; {
				_, from, err := u.ReadFromUDPAddrPort(b)
				if err != nil {
					return
				}
				arrivals <- from.Addr().Unmap()
			}
		}()
		return "made"
	}
	// tells: a datagram, and what became of it.
	bypasses["tells"] = func(to netip.AddrPort) string {
		c, err := net.Dial("udp", to.String())
		if err != nil {
			return said(err)
		}
		defer c.Close()
		failed := make(chan string, 1)
		go func() {
			_, err := c.Read(make([]byte, 64))
			failed <- said(err)
		}()
		if _, err := c.Write([]byte("x")); err != nil {
			return said(err)
		}
		select {
		case from := <-arrivals:
			return from.String()
		case err := <-failed:
			return err
		case <-time.After(time.Minute):
			return "nothing"
		}
	}
}

// byVA permits what comes from the address of va, or from loopback.
func byVA() *fwpm.Policy {
	from := func(id int, l fwpm.LayerID, prefix string) fwpm.Filter {
		return filter(id, l, fwp.ActionPermit, condition(fwpm.ConditionIPLocalAddress, fwp.Mask(netip.MustParsePrefix(prefix))))
	}
	return &fwpm.Policy{Filters: []fwpm.Filter{from(1, authConnect, "192.0.2.0/24"), from(2, fwpm.LayerALEAuthConnectV6, "2001:db8:1::/64"),
		from(3, authConnect, "127.0.0.0/8"), filter(4, authConnect, fwp.ActionBlock), filter(5, fwpm.LayerALEAuthConnectV6, fwp.ActionBlock)}}
}

// Where the policy tests IP_LOCAL_ADDRESS it is the address that calloutd's connection leaves by, in the
// program's network namespace. Datagrams that no callout decides are refused.
func TestDecidedByWhereItLeaves(t *testing.T) {
	enforcetest.Tool(t, "ip")
	s := newSite(t, byVA(), nil)
	defer s.attach(t).Close()
	got := s.start(t, unix.CLONE_NEWNET, "two ways/0.0.0.0:0", "patiently/tcp/203.0.113.1:4000", "tcp/203.0.113.129:4000",
		"tcp/[2001:db8:a::1]:4000", "tcp/[2001:db8:b::1]:4000", "tcp@198.51.100.1:0/203.0.113.1:4000", "udp/203.0.113.1:4000").end()
	require.Equal(t, []string{"made", "192.0.2.1 from 203.0.113.1:4000", "ECONNRESET", "2001:db8:1::1 from [2001:db8:a::1]:4000", "ECONNRESET",
		"192.0.2.1 from 203.0.113.1:4000", "EACCES"}, got)
	denials, _ := s.told()
	require.Contains(t, strings.Join(denials, "\n"), `203.0.113.129:4000 blocked at ALE_AUTH_CONNECT_V4 by filter 4`)
	require.Contains(t, strings.Join(denials, "\n"), "only the program's path or the address that it leaves by can decide it")
}

// So it is for datagrams that a callout decides, and for what it redirects: that leaves from here.
func TestDecidedByWhereItLeavesAndACallout(t *testing.T) {
	enforcetest.Tool(t, "ip")
	proxy := greet(t, "tcp4", "127.0.0.1:0", "proxy", nil)
	p := byVA()
	p.Callouts = []fwpm.Callout{{ID: "c", Name: "c"}}
	for i, l := range []fwpm.LayerID{fwpm.LayerALEConnectRedirectV4, fwpm.LayerALEConnectRedirectV6} {
		f := filter(6+i, l, fwp.ActionCalloutUnknown)
		f.Callout = "c"
		p.Filters = append(p.Filters, f)
	}
	s := newSite(t, p,
		fwps.CalloutFunc(func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
			v.Action = fwp.ActionPermit
			if c.In.Remote.Port() == 80 {
				v.Redirect, v.To, v.TargetPID = true, proxy, 1
			}
			return nil
		}))
	defer s.attach(t).Close()
	got := s.start(t, unix.CLONE_NEWNET, "two ways/0.0.0.0:0", "patiently/tells/203.0.113.1:4000", "tells/203.0.113.129:4000",
		"tells/[2001:db8:a::1]:4000", "tells/[2001:db8:b::1]:4000", "tcp/203.0.113.129:80").end()
	require.Equal(t, []string{"made", "192.0.2.1", "EHOSTUNREACH", "2001:db8:1::1", "EACCES", "proxy from 203.0.113.129:80"}, got)
}
