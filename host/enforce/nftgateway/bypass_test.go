//go:build linux

package nftgateway

import (
	"net/netip"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Each of these is a way round the gateway that somebody behind it tries in earnest.
// Without the gateway it leads there: the way exists.

// ways connect to a port outside, and hear what comes of it.
var ways = map[string]func(t *testing.T, to netip.AddrPort) (heard string, err error){
	"connect": func(t *testing.T, to netip.AddrPort) (string, error) {
		return connectFrom(socket(t, to, 0), to)
	},
	"MPTCP": func(t *testing.T, to netip.AddrPort) (string, error) {
		return connectFrom(socket(t, to, unix.IPPROTO_MPTCP), to)
	},
	"a device": func(t *testing.T, to netip.AddrPort) (string, error) {
		fd := socket(t, to, 0)
		require.NoError(t, unix.BindToDevice(fd, "in-peer"))
		return connectFrom(fd, to)
	},
	"the gateway's mark": func(t *testing.T, to netip.AddrPort) (string, error) {
		fd := socket(t, to, 0)
		require.NoError(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int((&Options{}).mark())))
		return connectFrom(fd, to)
	},
	"a type of service": func(t *testing.T, to netip.AddrPort) (string, error) {
		fd := socket(t, to, 0)
		require.NoError(t, unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TOS, 0x10))
		return connectFrom(fd, to)
	},
	"Fast Open": func(t *testing.T, to netip.AddrPort) (string, error) {
		fd, word := socket(t, to, 0), []byte("x")
		sa := []byte{2, 0, byte(to.Port() >> 8), byte(to.Port())}
		if a := to.Addr(); a.Is4() {
			sa = append(append(sa, a.AsSlice()...), make([]byte, 8)...)
		} else {
			sa[0] = unix.AF_INET6
			sa = append(append(append(sa, 0, 0, 0, 0), a.AsSlice()...), 0, 0, 0, 0)
		}
		if _, _, e := unix.Syscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&word[0])), 1, unix.MSG_FASTOPEN, uintptr(unsafe.Pointer(&sa[0])), uintptr(len(sa))); e != 0 {
			return "", e
		}
		return heard(fd)
	},
}

func socket(t *testing.T, to netip.AddrPort, protocol int) int {
	domain := unix.AF_INET
	if to.Addr().Is6() {
		domain = unix.AF_INET6
	}
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, protocol)
	require.NoError(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func sockaddr(to netip.AddrPort) unix.Sockaddr {
	if to.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}
	}
	return &unix.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port())}
}

func connectFrom(fd int, to netip.AddrPort) (string, error) {
	if err := unix.Connect(fd, sockaddr(to)); err != nil {
		return "", err
	}
	return heard(fd)
}

func heard(fd int) (string, error) {
	b := make([]byte, 64)
	n, err := unix.Read(fd, b)
	return string(b[:max(n, 0)]), err
}

func TestBypass(t *testing.T) {
	for _, transparent := range []bool{false, true} {
		t.Run(map[bool]string{false: "redirect", true: "transparent"}[transparent], func(t *testing.T) {
			router(t, func(n *network) { bypass(n, transparent) })
		})
	}
}

func bypass(n *network, transparent bool) {
	t := n.t
	var blocked []netip.AddrPort
	for _, network := range []string{"tcp4", "tcp6"} {
		for _, port := range []string{"25", "80"} {
			at := map[string]string{"tcp4": "198.18.1.2:", "tcp6": "[2001:db8:18:1::2]:"}[network] + port
			n.serveAt(network, at, port)
			if port == "25" {
				blocked = append(blocked, netip.MustParseAddrPort(at))
			}
		}
	}
	try := func(want string) {
		for name, way := range ways {
			for _, to := range blocked {
				n.at(n.inside, func() {
					got, err := way(t, to)
					require.Equal(t, want, got, "%s to %s", name, to)
					if want == "" {
						require.ErrorIs(t, err, unix.ECONNRESET, "%s to %s", name, to)
					}
					got, err = way(t, netip.AddrPortFrom(to.Addr(), 80))
					require.NoError(t, err, name)
					require.Equal(t, "80", got, "%s: what is permitted is reached", name)
				})
			}
		}
	}
	try("25")
	g, err := Start(t.Context(), Options{Interfaces: []string{"in"}, ALE: deciding(t, netip.AddrPort{}), Transparent: transparent, Logf: t.Logf})
	require.NoError(t, err)
	defer g.Close()
	try("")
}
