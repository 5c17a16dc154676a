package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// redirected8 is the row of a summary about the redirected port of an origin.
const redirected8 = `to (\[::ffff:)?127\.0\.0\.1\]?:8\d+: redirected to 127\.0\.0\.1:\d+ \(proxy forward\)`

// Programs that people use work, redirected, in every mode.
func TestWorks(t *testing.T) {
	warm(t)
	for _, w := range workers {
		t.Run(w.name, func(t *testing.T) {
			need(t, w.tool)
			argv, want := w.prepare(t)
			for _, mode := range []string{"--isolate=false", "--isolate"} {
				r := calloutd(t, append([]string{"run", mode, "--policy", forward, "--summary", "--"}, argv...)...)
				require.Zero(t, r.code, "%s\n%s\n%s", mode, r.stdout, r.stderr)
				require.Contains(t, r.stdout, want, mode)
				require.Regexp(t, redirected8, r.stderr, mode)
			}
			attached(t, argv, want)
		})
	}
}

// attached runs a command in a cgroup that the policy is attached to.
func attached(t *testing.T, argv []string, want string) {
	cgroup, in := newCgroup(t)
	said, end := background(t, "attached to", "attach", "--policy", forward, "--cgroup", cgroup, "--summary")
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.SysProcAttr = in
	r := finish(t, cmd)
	require.Zero(t, r.code, "%s\n%s", r.stdout, r.stderr)
	require.Contains(t, r.stdout, want)
	end()
	var text strings.Builder
	for line := range said {
		text.WriteString(line + "\n")
	}
	require.Regexp(t, redirected8, text.String())
}

// background runs calloutd until end is called, which waits for it, and returns
// when it has said that it is ready. What it says then is in said.
func background(t *testing.T, ready string, args ...string) (said <-chan string, end func()) {
	t.Helper()
	daemon := exec.CommandContext(t.Context(), "calloutd", args...)
	stderr, err := daemon.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, daemon.Start())
	lines, read := make(chan string, 1<<16), make(chan struct{})
	go func() {
		defer close(read)
		defer close(lines)
		for s := bufio.NewScanner(stderr); s.Scan(); {
			lines <- s.Text()
		}
	}()
	var before strings.Builder
	for line, there := <-lines; !strings.Contains(line, ready); line, there = <-lines { // What the proxies did comes before.
		require.True(t, there, "calloutd %v has ended:\n%s", args, &before)
		before.WriteString(line + "\n")
	}
	return lines, func() {
		require.NoError(t, daemon.Process.Signal(os.Interrupt))
		<-read
		require.NoError(t, daemon.Wait())
	}
}

const (
	routerEnv = "CALLOUTD_TEST_ROUTER" // this test is a router, in a network of its own
	beyond    = "198.51.100.7"         // behind it
)

// They work behind a gateway, whose client is in another network: what it reaches
// is what the policy redirects it to.
func TestWorksBehindAGateway(t *testing.T) {
	if os.Getenv(routerEnv) == "" {
		needGateway(t)
		warm(t)
		again := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestWorksBehindAGateway$", "-test.v")
		again.Env = append(os.Environ(), routerEnv+"=1")
		again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		r := finish(t, again)
		require.Zero(t, r.code, "%s\n%s", r.stdout, r.stderr)
		return
	}
	enter := behind(t)
	p := gatewayPolicy(t)
	for _, mode := range []string{"--transparent=false", "--transparent"} {
		said, end := background(t, "gateway for", "gateway", "--policy", p, "--interface", "in", "--summary", mode)
		for _, w := range workers {
			t.Run(w.name+" "+mode, func(t *testing.T) {
				need(t, w.tool)
				argv, want := w.prepare(t)
				r := finish(t, exec.CommandContext(t.Context(), enter[0], append(enter[1:], argv...)...))
				require.Zero(t, r.code, "%s\n%s", r.stdout, r.stderr)
				require.Contains(t, r.stdout, want)
			})
		}
		end()
		var text strings.Builder
		for line := range said {
			text.WriteString(line + "\n")
		}
		require.Regexp(t, `connections by 1 program, 0 refused\n  198\.18\.0\.2\n +\d+ to 198\.51\.100\.7:84\d\d: redirected to 127\.0\.0\.1:84\d\d\n`, text.String())
	}
}

// behind makes a network whose way out is this one, and returns what enters it.
func behind(t *testing.T) []string {
	inside := exec.Command("sleep", "infinity")
	inside.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	require.NoError(t, inside.Start())
	t.Cleanup(func() { _ = inside.Process.Kill(); _ = inside.Wait() })
	pid := strconv.Itoa(inside.Process.Pid)
	script(t, `ip link set lo up; ip link add in type veth peer name eth0 netns "$1"; ip addr add 198.18.0.1/24 dev in; ip link set in up
nsenter -t "$1" -n sh -euc 'ip link set lo up; ip addr add 198.18.0.2/24 dev eth0; ip link set eth0 up; ip route add default via 198.18.0.1'`, pid)
	return []string{"nsenter", "-t", pid, "-n"}
}

// gatewayPolicy redirects the ports of origins to the origins themselves.
func gatewayPolicy(t *testing.T) string {
	plugin, err := filepath.Abs("../../plugins/proxy-redirect/proxy-redirect.wasm")
	require.NoError(t, err)
	var rules strings.Builder
	for port := 8400; port < 8432; port++ {
		fmt.Fprintf(&rules, "        - {destinations: [%s/32], ports: [\"%d\"], proxy: \"127.0.0.1:%d\", proxy_pid: \"${pid}\"}\n", beyond, port, port)
	}
	return policy(t, fmt.Sprintf(`version: 1
callouts:
  - id: redirect
    wasm: %s
    config:
      rules:
%sfilters:
  - {name: to the origin, layer: ALE_CONNECT_REDIRECT, action: callout, callout: redirect, conditions: [{field: IP_PROTOCOL, value: tcp}]}
`, plugin, rules.String()))
}
