//go:build linux && (amd64 || arm64)

package seccomp

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce/enforcetest"
	"github.com/calloutd/calloutd/host/fwps"
)

// The scope of an address that needs one is kept, and that of another is not looked at.
func TestScopes(t *testing.T) {
	for _, a := range []string{"[fe80::1%2]:80", "[fe80::1%4294967295]:80", "[ff02::1%3]:5353", "[ff01::1%3]:1", "[fe80::1]:80", "[2001:db8::1]:443", "[::1]:1", "[::ffff:169.254.1.1]:80", "169.254.1.1:80"} {
		want := must(a)
		b := sockaddrOf(want)
		got, e := parse(domainOf(want.Addr()), b)
		require.Zero(t, e, a)
		require.Equal(t, want, got)
		if want.Addr().Is4() {
			continue
		}
		got, e = parse(unix.AF_INET6, b[:sockaddr6Min])
		require.Zero(t, e, a)
		require.Equal(t, netip.AddrPortFrom(want.Addr().WithZone(""), want.Port()), got, "RFC 2133")
		if want.Addr().Zone() == "" && !want.Addr().IsLinkLocalUnicast() {
			binary.NativeEndian.PutUint32(b[24:], 7)
			got, e = parse(unix.AF_INET6, b)
			require.Zero(t, e, a)
			require.Equal(t, want, got)
		}
	}
}

func init() {
	// link local: connect to an address of the link va, of which the callout makes one of
	// this host's.
	programs["link local"] = func([]string) {
		for _, line := range []string{"link set lo up", "link add va type veth peer name vb", "addr add fe80::5/64 dev va nodad",
			"link set va up", "link set vb up"} {
			if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
				panic(line + ": " + string(out))
			}
		}
		va, err := net.InterfaceByName("va")
		check(err)
		zone := "%" + strconv.Itoa(va.Index)
		l, err := net.Listen("tcp6", "[fe80::5"+zone+"]:0")
		check(err)
		proxy := l.Addr().(*net.TCPAddr).AddrPort()
		policy := deciding(func(in fwps.Incoming) netip.AddrPort {
			say("asked", in.Remote == must("[fe80::9"+zone+"]:80"))
			return netip.AddrPortFrom(proxy.Addr().WithZone(""), proxy.Port())
		})
		cmd := helper("dual", "tcp", "", "[fe80::9"+zone+"]:80")
		cmd.Stdout = os.Stdout
		_, err = Run(context.Background(), Options{ALE: policy}, cmd)
		check(err)
		c, err := l.Accept()
		check(err)
		say("reached", c.LocalAddr().String() == "[fe80::5%va]:"+strconv.Itoa(int(proxy.Port())))
	}
}

// A connection to an address of a link is one to that link, also where it is redirected.
func TestRedirectOnALink(t *testing.T) {
	enforcetest.Tool(t, "ip")
	require.Equal(t, "asked true\nok\nreached true\n", inNamespace(t, "link local"))
}
