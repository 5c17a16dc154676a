//go:build linux && (amd64 || arm64)

package cgroupbpf

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce/enforcetest"
)

// The test binary is the program in the cgroup: it connects or sends to each
// address and prints what came of it.
func TestMain(m *testing.M) {
	enforcetest.Client()
	if os.Getenv("CALLOUTD_HELPER") == "" {
		os.Exit(m.Run())
	}
	if n, err := strconv.Atoi(os.Args[1]); err == nil {
		fmt.Println(connects(n, os.Args[2]))
		return
	}
	for _, arg := range os.Args[1:] {
		network, to, _ := strings.Cut(arg, "/")
		fmt.Println(try(network, to))
	}
}

// throws connects, sends and closes, again and again.
func throws(n, to string) string {
	for count, _ := strconv.Atoi(n); count > 0; count-- {
		c, err := net.Dial("tcp4", to)
		if err != nil {
			return err.Error()
		}
		_, err = c.Write([]byte("x"))
		if err := errors.Join(err, c.Close()); err != nil {
			return err.Error()
		}
	}
	return "ok"
}

// hammer connects until its standard input ends.
func hammer(to string) string {
	tries, through := 0, 0
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	for {
		c, err := net.Dial("tcp", to)
		tries++
		if err == nil {
			through++
			c.Close()
		}
		select {
		case <-done:
			return fmt.Sprint(tries, through)
		default:
		}
	}
}

// patient lets a connection wait long for calloutd: the machine may be busy.
func patient(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_SYNCNT, 10) } // It is not TCP.

func try(network, to string) string {
	if bypass := bypasses[network]; bypass != nil {
		return bypass(netip.MustParseAddrPort(to))
	}
	if n, throw := strings.CutPrefix(network, "throws"); throw {
		return throws(n, to)
	}
	if number, as := strings.CutPrefix(network, "number "); as {
		return numbered(number, netip.MustParseAddrPort(to))
	}
	switch network {
	case "daemon":
		return daemon(to)
	case "abused":
		return abused(to)
	case "hammers":
		enforcetest.Hammer(strings.Split(to, ",")...)
	case "hammer":
		return hammer(to)
	case "udp-floods":
		return floodsDatagrams(to)
	case "floods":
		return floods(to)
	case "hangs":
		return hangs(to)
	case "up":
		return up()
	case "stdin":
		_, _ = io.Copy(io.Discard, os.Stdin)
		return "told"
	case "patiently":
		network, to, _ := strings.Cut(to, "/")
		return patiently(network, to)
	case "socket":
		if _, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err.Error()
		}
		return "made"
	case "leave":
		return leave()
	case "with left":
		return withLeft(to)
	case "sends":
		return sends(strings.Split(to, ","))
	case "mapped":
		return sendsMapped(netip.MustParseAddrPort(to), true)
	case "mapped-sends":
		return sendsMapped(netip.MustParseAddrPort(to), false)
	}
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error { return c.Control(patient) }}
	if usual, as := strings.CutPrefix(network, "usual-"); as {
		network, d.Control = usual, nil
	}
	network, at, bound := strings.Cut(network, "@") // tcp@127.0.0.1:40000/...
	if bound {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.MustParseAddrPort(at))
	}
	c, err := d.Dial(network, to)
	var errno unix.Errno
	if errors.As(err, &errno) {
		return unix.ErrnoName(errno)
	}
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if strings.HasPrefix(network, "udp") {
		if _, err := c.Write([]byte("x")); errors.As(err, &errno) {
			return unix.ErrnoName(errno)
		}
	}
	b := make([]byte, 64)
	n, err := c.Read(b)
	if errors.As(err, &errno) {
		return unix.ErrnoName(errno)
	}
	return fmt.Sprintf("%s from %s", b[:n], c.RemoteAddr())
}

// sends sends to each address from one socket that is not connected, twice, and says
// what is answered, and from where.
func sends(to []string) string {
	network := "udp4"
	if netip.MustParseAddrPort(to[0]).Addr().Is6() {
		network = "udp6"
	}
	c, err := net.ListenPacket(network, ":0")
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	var said []string
	for _, a := range append(to, to...) {
		_, err := c.WriteTo([]byte("x"), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(a)))
		if errno := unix.Errno(0); errors.As(err, &errno) {
			said = append(said, unix.ErrnoName(errno))
			continue
		}
		b := make([]byte, 64)
		n, from, err := c.ReadFrom(b)
		if err != nil {
			return err.Error()
		}
		said = append(said, fmt.Sprintf("%s from %s", b[:n], from))
	}
	return strings.Join(said, ", ")
}

// sendsMapped sends to an address from a socket of IPv6, connected or not.
func sendsMapped(to netip.AddrPort, connected bool) string {
	answer, err := func() (string, error) {
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return "", err
		}
		defer unix.Close(fd)
		sa := &unix.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port())}
		if connected {
			err = unix.Connect(fd, sa)
			if err == nil {
				_, err = unix.Write(fd, []byte("x"))
			}
		} else {
			err = unix.Sendto(fd, []byte("x"), 0, sa)
		}
		if err != nil {
			return "", err
		}
		b := make([]byte, 64)
		n, from, err := unix.Recvfrom(fd, b, 0)
		if err != nil {
			return "", err
		}
		sa = from.(*unix.SockaddrInet6)
		return fmt.Sprintf("%s from %s", b[:n], netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))), nil
	}()
	if errno := unix.Errno(0); errors.As(err, &errno) {
		return unix.ErrnoName(errno)
	}
	return answer
}

// connects is how long n connects take, in nanoseconds each.
func connects(n int, to string) float64 {
	a := netip.MustParseAddrPort(to)
	sa := &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	var spent time.Duration
	for range n {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			panic(err)
		}
		start := time.Now()
		if err := unix.Connect(fd, sa); err != nil {
			panic(err)
		}
		spent += time.Since(start)
		_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		unix.Close(fd)
	}
	return float64(spent.Nanoseconds()) / float64(n)
}
