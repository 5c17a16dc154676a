//go:build linux && (amd64 || arm64)

package seccomp

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/enforce/enforcetest"
	"github.com/calloutd/calloutd/host/fwps"
)

// Tests with a network of their own: loopback, and 192.0.2.1 on the device va.

func init() {
	// network: make the network and run a supervisor there, as a user.
	programs["network"] = func(args []string) {
		for _, line := range []string{"link set lo up", "link add va type veth peer name vb", "addr add 192.0.2.1/24 dev va",
			"link set va up", "link set vb up"} {
			out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput()
			if err != nil {
				panic(line + ": " + string(out))
			}
		}
		l := listenRaw()
		_, addr, _ := getName(l)
		cmd := helper("supervise", append([]string{"protected", addr.String()}, args[1:]...)...)
		cmd.Stdout = os.Stdout
		if args[0] == "user" {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobodyID, Gid: nobodyID}}
		}
		check(cmd.Run())
		check(unix.SetNonblock(l, true))
		fd, _, err := unix.Accept(l)
		say("reached", err == nil, fd > 0)
	}
	// device: dial from a socket that is bound to a device.
	programs["device"] = func(args []string) {
		fd := newSocket(unix.AF_INET, unix.SOCK_STREAM)
		check(unix.BindToDevice(fd, args[0]))
		say(name(sysConnect(fd, sockaddrOf(must(args[1])))))
	}
}

func inNetwork(t *testing.T, args ...string) string {
	enforcetest.Tool(t, "ip")
	return inNamespace(t, "network", args...)
}

func inNamespace(t *testing.T, program string, args ...string) string {
	need(t, enforce.UserNS)
	asRoot(t)
	cmd := helper(program, args...)
	cmd.Path = copyBinary(t, "calloutd")
	cmd.Args[0], cmd.Dir = cmd.Path, "/"
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}, {ContainerID: nobodyID, HostID: nobodyID, Size: 1}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWNS,
		UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true}
	return output(t, cmd)
}

// serveNames answers every question about an IPv4 address with 127.0.0.1.
func serveNames(c *net.UDPConn) {
	for b := make([]byte, 1500); ; {
		n, from, err := c.ReadFromUDPAddrPort(b)
		check(err)
		var m dnsmessage.Message
		check(m.Unpack(b[:n]))
		m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
		for _, q := range m.Questions {
			if q.Type == dnsmessage.TypeA {
				m.Answers = append(m.Answers, dnsmessage.Resource{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1},
					Body:   &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}}})
			}
		}
		out, err := m.Pack()
		check(err)
		_, err = c.WriteToUDPAddrPort(out, from)
		check(err)
	}
}

func init() {
	// resolve: serve names, and run a supervised command that asks for one.
	programs["resolve"] = func(args []string) {
		if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
			panic(string(out))
		}
		conf, err := os.CreateTemp("", "resolv")
		check(err)
		_, err = conf.WriteString("nameserver 127.0.0.1\n")
		check(err)
		check(unix.Mount(conf.Name(), "/etc/resolv.conf", "", unix.MS_BIND, ""))
		check(os.Remove(conf.Name()))
		names, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 53})
		check(err)
		go serveNames(names)
		cmd := exec.Command(args[1], args[2:]...)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if args[1] == "go" {
			cmd = helper("lookup")
			cmd.Stdout = os.Stdout
		}
		var decided atomic.Int64
		opts := Options{Isolate: args[0] == "isolated", Logf: func(f string, a ...any) { say(fmt.Sprintf(f, a...)) },
			ALE: deciding(func(in fwps.Incoming) netip.AddrPort {
				if in.Protocol == fwps.ProtocolUDP && in.Remote.Port() == 53 {
					decided.Add(1)
				}
				return in.Remote
			})}
		_, err = Run(context.Background(), opts, cmd)
		check(err)
		say("questions decided", decided.Load() > 0)
	}
	programs["lookup"] = func([]string) {
		a, err := net.LookupHost("origin.test")
		say(a, err)
	}
}

// Names are resolved as ever, and the policy sees whom the programs ask.
func TestDNS(t *testing.T) {
	enforcetest.Tool(t, "ip")
	for name, args := range map[string][]string{
		"getent":  {"hosts", "origin.test"},
		"python3": {"-c", "import socket; print(socket.gethostbyname('origin.test'))"},
		"node":    {"-e", "require('dns').resolve4('origin.test', (e, a) => console.log(e, a))"},
		"go":      nil,
	} {
		if name != "go" {
			enforcetest.Tool(t, name)
		}
		for _, mode := range []string{"plain", "isolated"} {
			t.Run(name+" "+mode, func(t *testing.T) {
				out := inNamespace(t, "resolve", append([]string{mode, name}, args...)...)
				require.Contains(t, out, "127.0.0.1")
				require.Contains(t, out, "questions decided true\n")
			})
		}
	}
}

// A redirect to loopback leaves the device that the socket is bound to, if the
// supervisor may do that; if not it fails at once instead of getting lost.
func TestRedirectFromADevice(t *testing.T) {
	require.Equal(t, "ok\nreached true true\n", inNetwork(t, "root", "device", "va", test4))
	require.Equal(t, "ENETUNREACH\nreached false false\n", inNetwork(t, "user", "device", "va", test4))
	require.Equal(t, "ok\nreached true true\n", inNetwork(t, "user", "device", "lo", test4))
}
