//go:build linux && (amd64 || arm64)

package seccomp

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect/memstore"
)

// A network with two devices, va and vb, and two addresses of each family. What goes to
// 203.0.113.0 to .127 and 2001:db8:a:: leaves by the address of va, what goes to
// 203.0.113.128 and above and 2001:db8:b:: by that of vb; all of it arrives on this host.
var twoWays = []string{
	"link set lo up", "link add va type veth peer name vb", "link set va up", "link set vb up",
	"addr add 192.0.2.1/24 dev va", "addr add 198.51.100.1/24 dev vb",
	"addr add 2001:db8:1::1/64 dev va nodad", "addr add 2001:db8:2::1/64 dev vb nodad",
	"route add local 203.0.113.0/25 dev lo src 192.0.2.1", "route add local 203.0.113.128/25 dev lo src 198.51.100.1",
	"-6 route add local 2001:db8:a::/64 dev lo src 2001:db8:1::1", "-6 route add local 2001:db8:b::/64 dev lo src 2001:db8:2::1",
	"-6 route add 2001:db8:f::/48 dev va metric 1", "-6 route add 2001:db8:f::/48 dev vb metric 2",
}

func ip(line string) {
	if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
		panic(line + ": " + string(out))
	}
}

// leavesByVA permits what comes from an address of va or from loopback, and blocks the rest.
func leavesByVA() *ale.Enforcer {
	e := host.New(host.Options{})
	permits := func(id fwpm.FilterID, l fwpm.LayerID, from string) fwpm.Filter {
		return fwpm.Filter{ID: id, Name: "by va", Layer: l, Action: fwp.ActionPermit,
			Conditions: []fwpm.Condition{{Field: fwpm.ConditionIPLocalAddress, Match: fwp.MatchEqual, Value: fwp.Mask(netip.MustParsePrefix(from))}}}
	}
	_, _, err := e.RegisterCallout("c", fwps.CalloutFunc(func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
		v.Action = fwp.ActionPermit
		to := c.In.Remote
		switch to.Addr() {
		case netip.MustParseAddr("203.0.113.50"): // to the other way
			v.Redirect, v.To = true, netip.AddrPortFrom(netip.MustParseAddr("203.0.113.150"), to.Port())
		case netip.MustParseAddr("203.0.113.151"):
			v.Redirect, v.To = true, netip.AddrPortFrom(netip.MustParseAddr("203.0.113.51"), to.Port())
		}
		return nil
	}))
	check(err)
	check(e.Update(func(p *fwpm.Policy) error {
		p.Callouts = append(p.Callouts, fwpm.Callout{ID: "c", Name: "c"})
		p.Filters = append(p.Filters, permits(1, fwpm.LayerALEAuthConnectV4, "192.0.2.0/24"), permits(2, fwpm.LayerALEAuthConnectV4, "127.0.0.0/8"),
			permits(3, fwpm.LayerALEAuthConnectV6, "2001:db8:1::/64"),
			fwpm.Filter{ID: 4, Name: "rest", Layer: fwpm.LayerALEAuthConnectV4, Action: fwp.ActionBlock},
			fwpm.Filter{ID: 5, Name: "rest", Layer: fwpm.LayerALEAuthConnectV6, Action: fwp.ActionBlock},
			fwpm.Filter{ID: 6, Name: "redirects", Layer: fwpm.LayerALEConnectRedirectV4, Action: fwp.ActionCalloutUnknown, Callout: "c"})
		return nil
	}))
	return ale.New(ale.Options{Classifier: e, Store: memstore.New(0)})
}

const farPort = 4000

func init() {
	// two ways: make the network, and supervise a program there that leaves by both.
	programs["two ways"] = func(args []string) {
		for _, line := range twoWays {
			ip(line)
		}
		check(os.WriteFile("/proc/sys/net/ipv4/fib_multipath_hash_policy", []byte("1"), 0))
		for _, domain := range []int{unix.AF_INET, unix.AF_INET6} {
			l := newSocket(domain, unix.SOCK_STREAM)
			check(unix.SetsockoptInt(l, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
			var at unix.Sockaddr = &unix.SockaddrInet4{Port: farPort}
			if domain == unix.AF_INET6 {
				check(unix.SetsockoptInt(l, unix.SOL_IPV6, unix.IPV6_V6ONLY, 1))
				at = &unix.SockaddrInet6{Port: farPort}
			}
			check(unix.Bind(l, at))
			check(unix.Listen(l, 1024))
		}
		arrived, err := net.ListenUDP("udp", &net.UDPAddr{Port: farPort})
		check(err)
		as, how, _ := strings.Cut(args[0], " ")
		cmd := helper("leaving", append([]string{how}, args[1:]...)...)
		cmd.Stdout = os.Stdout
		if as == "user" {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobodyID, Gid: nobodyID}}
		}
		check(cmd.Run())
		raw, err := arrived.SyscallConn()
		check(err)
		check(raw.Control(func(fd uintptr) {
			for b := make([]byte, 256); ; {
				n, from, err := unix.Recvfrom(int(fd), b, unix.MSG_DONTWAIT)
				if err != nil {
					return
				}
				say("arrived", string(b[:n]), netip.AddrFrom16(from.(*unix.SockaddrInet6).Addr).Unmap())
			}
		}))
	}
	programs["leaving"] = func(args []string) {
		cmd := helper("leave", args[1:]...)
		cmd.Stdout = os.Stdout
		if args[0] == "elsewhere" {
			cmd = exec.Command("unshare", append([]string{"--map-root-user", "--net"}, cmd.Args...)...)
			cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), programEnv+"=leave"), os.Stdout, os.Stderr
		}
		opts := Options{ALE: leavesByVA(), Isolate: args[0] == "isolated", Logf: func(f string, a ...any) { say(fmt.Sprintf(f, a...)) },
			OnBlocked: func(d enforce.Denial) {
				if _, why, ok := strings.Cut(d.Err.Error(), "a filter tests IP_LOCAL_ADDRESS"); ok {
					say("told:", why)
				}
			}}
		_, err := Run(context.Background(), opts, cmd)
		check(err)
	}
	programs["leave"] = func(args []string) {
		for _, a := range args {
			say(a+":", leaveBy(strings.Fields(a)))
		}
	}
}

// leaveBy makes a socket and does with it what the words say, up to the last, and answers what
// that one came to.
func leaveBy(words []string) (result string) {
	var fd int
	var control []byte
	to := func(s string) netip.AddrPort {
		if a, err := netip.ParseAddr(s); err == nil {
			return netip.AddrPortFrom(a, farPort)
		}
		return must(s)
	}
	for _, word := range words {
		what, value, _ := strings.Cut(word, "=")
		var e error
		switch what {
		case "tcp4", "tcp6", "udp4", "udp6":
			domain, kind := unix.AF_INET, unix.SOCK_STREAM
			if what[3] == '6' {
				domain = unix.AF_INET6
			}
			if what[0] == 'u' {
				kind = unix.SOCK_DGRAM
			}
			fd = newSocket(domain, kind)
			defer unix.Close(fd)
			check(unix.SetNonblock(fd, value == "nonblocking"))
		case "bind":
			check(unix.Bind(fd, goSockaddr(fd, netip.AddrPortFrom(netip.MustParseAddr(value), 0))))
		case "device":
			check(unix.BindToDevice(fd, value))
		case "unicast":
			i, err := net.InterfaceByName(value)
			check(err)
			if domain, _, _ := getName(fd); domain == unix.AF_INET {
				check(unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_UNICAST_IF, i.Index<<24))
			} else {
				check(unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_UNICAST_IF, i.Index<<24))
			}
		case "sticky":
			i, err := net.InterfaceByName(value)
			check(err)
			option := unix.Inet6Pktinfo{Ifindex: uint32(i.Index)}
			check(callErr(setOption(fd, unix.SOL_IPV6, unix.IPV6_PKTINFO, &option)))
		case "from":
			if a := netip.MustParseAddr(value); a.Is4() {
				control = unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: a.As4()})
			} else {
				control = unix.PktInfo6(&unix.Inet6Pktinfo{Addr: a.As16()})
			}
		case "plain":
			control = nil
		case "connect":
			e = callErr(sysConnect(fd, sockaddrOf(to(value))))
		case "send":
			e = unix.Sendmsg(fd, []byte(strings.Join(words, " ")), control, goSockaddr(fd, to(value)), 0)
		case "say": // to its peer
			e = unix.Sendmsg(fd, []byte(strings.Join(words, " ")), control, nil, 0)
		case "ip":
			ip(strings.ReplaceAll(value, "_", " "))
		case "network":
			for _, line := range twoWays {
				ip(line)
			}
		case "own":
			if result != "ok" && result != "EINPROGRESS" {
				return result
			}
			_, local, _ := getName(fd)
			return local.Addr().String()
		}
		if result = "ok"; e != nil {
			result = name(errnoOf(e))
		}
	}
	return result
}

func goSockaddr(fd int, a netip.AddrPort) unix.Sockaddr {
	if domain, _, _ := getName(fd); domain == unix.AF_INET {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

// Where the policy tests IP_LOCAL_ADDRESS at ALE_AUTH_CONNECT it is that of the route, as in Windows.
func TestDecidedByWhereItLeaves(t *testing.T) {
	const near4, far4, near6, far6 = "203.0.113.1", "203.0.113.129", "2001:db8:a::1", "2001:db8:b::1"
	const va4, vb4, va6, vb6 = "192.0.2.1", "198.51.100.1", "2001:db8:1::1", "2001:db8:2::1"
	cases := []struct{ does, result, arrives string }{
		{"tcp4 connect=" + near4, "ok", ""},
		{"tcp4 connect=" + far4, "EACCES", ""},
		{"tcp6 connect=" + near6, "ok", ""},
		{"tcp6 connect=" + far6, "EACCES", ""},
		{"tcp6 connect=::ffff:" + near4, "ok", ""},
		{"tcp6 connect=::ffff:" + far4, "EACCES", ""},
		{"tcp4=nonblocking connect=" + near4, "EINPROGRESS", ""},
		{"tcp4=nonblocking connect=" + far4, "EACCES", ""},
		// Bound sockets send from where they are bound.
		{"tcp4 bind=" + va4 + " connect=" + far4, "ok", ""},
		{"tcp4 bind=" + vb4 + " connect=" + near4, "EACCES", ""},
		{"tcp6 bind=::ffff:" + va4 + " connect=::ffff:" + far4, "ok", ""},
		{"udp4 bind=" + va4 + " send=" + far4, "ok", va4},
		{"udp4 bind=" + vb4 + " send=" + near4, "EACCES", ""},
		// The device counts; nobody is there.
		{"tcp4=nonblocking connect=192.0.2.9", "EINPROGRESS", ""},
		{"tcp4=nonblocking device=vb connect=192.0.2.9", "EACCES", ""},
		{"udp4 device=vb send=192.0.2.9", "EACCES", ""},
		{"udp4 unicast=vb send=192.0.2.9", "EACCES", ""},
		{"udp4 unicast=va send=192.0.2.9", "ok", ""},
		{"udp6 unicast=vb send=2001:db8:f::1", "EACCES", ""},
		{"udp6 send=2001:db8:f::1", "ok", ""},
		// This option nobody can read: it shows when the socket is connected.
		{"udp6 sticky=vb connect=2001:db8:f::1", "EACCES", ""},
		{"udp6 sticky=vb connect=2001:db8:f::1 say", "EDESTADDRREQ", ""},
		{"udp6 sticky=va connect=2001:db8:f::1", "ok", ""},
		{"tcp4 connect=198.18.0.1", "ENETUNREACH", ""},
		{"tcp6 connect=2001:db8:c::1", "ENETUNREACH", ""},
		{"udp4 send=198.18.0.1", "ENETUNREACH", ""},
		{"udp4 connect=" + near4 + " say", "ok", va4},
		{"udp4 connect=" + far4, "EACCES", ""},
		{"udp6 connect=" + near6 + " say", "ok", va6},
		{"udp6 connect=" + far6, "EACCES", ""},
		{"udp4 send=" + near4, "ok", va4},
		{"udp4 send=" + far4, "EACCES", ""},
		{"udp6 send=" + near6, "ok", va6},
		{"udp6 send=" + far6, "EACCES", ""},
		{"udp6 send=::ffff:" + near4, "ok", va4},
		{"udp6 send=::ffff:" + far4, "EACCES", ""},
		// So does what the datagram says.
		{"udp4 from=" + va4 + " send=" + far4, "ok", va4},
		{"udp4 from=" + vb4 + " send=" + near4, "EACCES", ""},
		{"udp6 from=" + va6 + " send=" + far6, "ok", va6},
		{"udp6 from=" + vb6 + " send=" + near6, "EACCES", ""},
		{"udp6 from=" + vb4 + " send=::ffff:" + near4, "EACCES", ""},
		{"udp6 from=::ffff:" + vb4 + " send=::ffff:" + near4, "EACCES", ""},
		{"udp6 from=::ffff:" + va4 + " send=::ffff:" + far4, "ok", va4},
		{"udp4 bind=" + va4 + " from=" + vb4 + " send=" + near4, "EACCES", ""},
		{"udp4 bind=" + va4 + " from=0.0.0.0 send=" + far4, "EACCES", ""},
		{"udp6 bind=" + va6 + " from=:: send=" + far6, "ok", va6},
		{"udp4 connect=" + near4 + " from=" + va4 + " say", "ok", va4},
		{"udp4 connect=" + near4 + " from=0.0.0.0 say", "ok", va4},
		{"udp4 connect=" + near4 + " from=" + vb4 + " say", "EACCES", ""},
		{"udp6 connect=" + near6 + " from=" + vb6 + " say", "EACCES", ""},
		// Each source is a flow of its own.
		{"udp4 send=203.0.113.2 from=" + vb4 + " send=203.0.113.2", "EACCES", va4},
		{"udp4 from=" + vb4 + " send=203.0.113.3 plain send=203.0.113.3", "ok", va4},
		// Redirects: where it goes counts, not where it was to go.
		{"tcp4 connect=203.0.113.50", "EACCES", ""},
		{"tcp4 connect=203.0.113.151", "ok", ""},
		{"udp4 send=203.0.113.50", "EACCES", ""},
		{"udp4 send=203.0.113.151", "ok", va4},
	}
	for _, who := range []string{"root", "user", "user isolated"} {
		t.Run(who, func(t *testing.T) {
			args := []string{who}
			var want, arrive []string
			for _, c := range cases {
				args = append(args, c.does)
				want = append(want, c.does+": "+c.result)
				if c.arrives == "" {
					continue
				}
				arrive = append(arrive, "arrived "+c.does+" "+c.arrives)
			}
			out := strings.Split(strings.TrimSpace(inNamespace(t, "two ways", args...)), "\n")
			got := slices.DeleteFunc(slices.Clone(out), func(l string) bool { return strings.HasPrefix(l, "arrived ") })
			require.Equal(t, want, got)
			require.Equal(t, arrive, slices.DeleteFunc(out, func(l string) bool { return !strings.HasPrefix(l, "arrived ") }))
		})
	}
}

// A socket of another network namespace is decided by the routes there, by whom may enter it, and
// refused by others.
func TestDecidedByWhereItLeavesElsewhere(t *testing.T) {
	does := []string{"network", "tcp4 connect=203.0.113.1", "tcp4 connect=203.0.113.129", "udp4 send=203.0.113.1", "udp4 send=203.0.113.129"}
	require.Equal(t, "network: ok\ntcp4 connect=203.0.113.1: ECONNREFUSED\ntcp4 connect=203.0.113.129: EACCES\nudp4 send=203.0.113.1: ok\nudp4 send=203.0.113.129: EACCES\n",
		inNamespace(t, "two ways", append([]string{"root elsewhere"}, does...)...))
	out := inNamespace(t, "two ways", append([]string{"user elsewhere"}, does[:2]...)...)
	require.Contains(t, out, "told: , and where it would come from is not known: the socket is in a network namespace of its own, and to ask for the routes there takes root: ")
	require.Contains(t, out, "connect=203.0.113.1: EACCES\n")
}

// A route that changes makes what is sent by it another flow.
func TestDecidedAnewWhenTheRouteChanges(t *testing.T) {
	const does = "udp4 send=203.0.113.1 ip=route_change_local_203.0.113.0/25_dev_lo_src_198.51.100.1 send=203.0.113.1"
	require.Equal(t, does+": EACCES\narrived "+does+" 192.0.2.1\n", inNamespace(t, "two ways", "root", does))
}

// A connection takes one of two ways by its port, which is chosen with it: what the kernel says
// before does not hold. None that leaves by the wrong one goes on.
func TestDecidedAnewWhereItLeavesAnotherWay(t *testing.T) {
	args := []string{"root", "ip=route_add_198.18.0.0/16_nexthop_via_192.0.2.9_dev_va_nexthop_via_198.51.100.9_dev_vb"}
	for i := range 400 {
		args = append(args, fmt.Sprintf("tcp4=nonblocking connect=198.18.0.%d own", i/20))
	}
	out := inNamespace(t, "two ways", args...)
	require.Equal(t, 0, strings.Count(out, ": 198.51.100.1\n"), out)
	require.Positive(t, strings.Count(out, ": 192.0.2.1\n"))
	require.Equal(t, 400, strings.Count(out, ": 192.0.2.1\n")+strings.Count(out, ": EACCES\n"))
}
