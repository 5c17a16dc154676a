//go:build linux && (amd64 || arm64)

package seccomp

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
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
	need(t)
	asRoot(t)
	tool(t, "ip")
	cmd := helper("network", args...)
	cmd.Path = copyBinary(t, "calloutd")
	cmd.Args[0], cmd.Dir = cmd.Path, "/"
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}, {ContainerID: nobodyID, HostID: nobodyID, Size: 1}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNET,
		UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true}
	return output(t, cmd)
}

// A redirect to loopback leaves the device that the socket is bound to, if the
// supervisor may do that; if not it fails at once instead of getting lost.
func TestRedirectFromADevice(t *testing.T) {
	require.Equal(t, "ok\nreached true true\n", inNetwork(t, "root", "device", "va", test4))
	require.Equal(t, "ENETUNREACH\nreached false false\n", inNetwork(t, "user", "device", "va", test4))
	require.Equal(t, "ok\nreached true true\n", inNetwork(t, "user", "device", "lo", test4))
}
