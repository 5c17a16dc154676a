package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/wsk/remote"
	"github.com/calloutd/calloutd/wsk/winsock"
)

// remoteProxy is a forward proxy that is another program: it says where it
// listens, and asks the service of its argument whom its connections are for. An
// error goes to the client.
func remoteProxy() {
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		panic(err)
	}
	fmt.Println(l.Addr())
	if _, err := fmt.Scanln(); err != nil { // until the service is there
		panic(err)
	}
	client, err := remote.Dial(context.Background(), os.Args[1])
	if err != nil {
		panic(err)
	}
	if len(os.Args) > 2 {
		fmt.Println(goOn(client, l))
		return
	}
	for ln := client.Listener(l); ; {
		c, err := ln.Accept()
		if err != nil {
			panic(err)
		}
		go func() {
			defer c.Close()
			if err := carry(client, c.(*remote.Conn)); err != nil {
				fmt.Fprintln(c, err)
			}
		}()
	}
}

// goOn takes the records of one connection, says so, and makes its own connection with
// them, through another service, when it is told to. It returns what it hears there.
func goOn(client *remote.Client, l *net.TCPListener) string {
	in, err := client.Listener(l).Accept()
	if err != nil {
		panic(err)
	}
	records, err := winsock.RedirectRecords(in.(*remote.Conn))
	if err != nil {
		panic(err)
	}
	to, err := winsock.OriginalDestination(in.(*remote.Conn))
	if err != nil {
		panic(err)
	}
	fmt.Println("has", len(records), "bytes")
	if _, err := fmt.Scanln(); err != nil {
		panic(err)
	}
	if client, err = remote.Dial(context.Background(), os.Args[1]); err != nil {
		panic(err)
	}
	d := net.Dialer{ControlContext: client.Control(records)}
	d.SetMultipathTCP(false)
	out, err := d.Dial("tcp", to.String())
	if err != nil {
		return err.Error()
	}
	defer out.Close()
	heard, err := io.ReadAll(out)
	return fmt.Sprint(string(heard), err)
}

func carry(client *remote.Client, in *remote.Conn) error {
	records, err := winsock.RedirectRecords(in)
	if err != nil {
		return err
	}
	to, err := winsock.OriginalDestination(in)
	if err != nil {
		return err
	}
	d := net.Dialer{ControlContext: client.Control(records)}
	d.SetMultipathTCP(false)
	out, err := d.Dial("tcp", to.String())
	if err != nil {
		return err
	}
	defer out.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		_, _ = io.Copy(out, in)
		_ = out.(*net.TCPConn).CloseWrite()
	})
	if _, err = io.Copy(in, out); err != nil {
		return errors.Join(err, in.CloseRead())
	}
	return in.CloseWrite()
}

// A proxyProgram is a remoteProxy in a cgroup.
type proxyProgram struct {
	t      *testing.T
	policy string // that redirects to it, in policy.yaml
	stdin  io.Writer
	stdout *bufio.Reader
}

func startRemoteProxy(t *testing.T, in *syscall.SysProcAttr, dir string, args ...string) *proxyProgram {
	t.Helper()
	cmd := exec.Command("remoteproxy", append([]string{filepath.Join(dir, "remote.sock")}, args...)...)
	cmd.SysProcAttr, cmd.Stderr = in, os.Stderr
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	p := &proxyProgram{t: t, stdin: stdin, stdout: bufio.NewReader(stdout)}
	plugin, err := filepath.Abs("../../plugins/proxy-redirect/proxy-redirect.wasm")
	require.NoError(t, err)
	p.policy = fmt.Sprintf(`version: 1
callouts:
  - id: redirect
    wasm: %s
    config: {rules: [{destinations: [127.0.0.0/8], ports: ["8000-8999"], proxy: %q, proxy_pid: %d}]}
filters:
  - {name: to the proxy, layer: ALE_CONNECT_REDIRECT, action: callout, callout: redirect, conditions: [{field: IP_PROTOCOL, value: tcp}]}
`, plugin, p.line(), cmd.Process.Pid)
	put(t, filepath.Join(dir, "policy.yaml"), p.policy)
	return p
}

// line is what the proxy says next.
func (p *proxyProgram) line() string {
	p.t.Helper()
	s, err := p.stdout.ReadString('\n')
	require.NoError(p.t, err)
	return strings.TrimSuffix(s, "\n")
}

// proceed lets the proxy go on.
func (p *proxyProgram) proceed() {
	p.t.Helper()
	_, err := io.WriteString(p.stdin, "\n")
	require.NoError(p.t, err)
}

// AMB-15: what a daemon sealed that was killed is good for the next one with its
// file, and is the redirect of the same callout; without the file it is forged.
func TestRecordsOutliveTheDaemon(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"with the file":    {[]string{"--records", "records.db"}, "origin"},
		"without the file": {nil, "not a record that this engine sealed"},
	} {
		t.Run(name, func(t *testing.T) {
			cgroup, in := newCgroup(t)
			warm(t)
			dir := t.TempDir()
			proxy := startRemoteProxy(t, in, dir, "go on")
			args := append([]string{"--cgroup", cgroup, "--trace"}, c.args...)
			s := serve(t, dir, args...)
			proxy.proceed()
			origin := origin(t)
			defer origin.Close()
			program := exec.Command("bash", "-c", `exec 3<>/dev/tcp/127.0.0.1/"$1"; cat <&3`, "bash", strings.TrimPrefix(origin.Addr().String(), "127.0.0.1:"))
			program.SysProcAttr = in
			require.NoError(t, program.Start())
			defer func() { _ = program.Process.Kill(); _ = program.Wait() }()
			require.Contains(t, proxy.line(), "has ")

			require.NoError(t, s.cmd.Process.Kill())
			_ = s.cmd.Wait()
			s = serve(t, dir, args...)
			go func() {
				if c, err := origin.Accept(); err == nil {
					_, _ = io.WriteString(c, "origin")
					c.Close()
				}
			}()
			proxy.proceed()
			require.Contains(t, proxy.line(), c.want)
			s.end()
		})
	}
}

// The whole loop with a proxy of its own process: a program in the cgroup is
// redirected to it, it asks for the socket that it accepted, and its own
// connection, from the same cgroup, is known as the callout's (SC-30). The policy
// changes while a connection is carried, and the daemon drains.
func TestServeCgroupWithARemoteProxy(t *testing.T) {
	cgroup, in := newCgroup(t)
	warm(t)
	dir := t.TempDir()
	proxy := startRemoteProxy(t, in, dir)
	policy := proxy.policy
	s := serve(t, dir, "--cgroup", cgroup, "--trace", "--strict-queries")
	proxy.proceed()

	origin := origin(t).(*net.TCPListener)
	defer origin.Close()
	program := exec.Command("bash", "-c", `exec 3<>/dev/tcp/127.0.0.1/"$1"; echo hello >&3; cat <&3`, "bash", strings.TrimPrefix(origin.Addr().String(), "127.0.0.1:"))
	program.SysProcAttr = in
	var heard strings.Builder
	program.Stdout, program.Stderr = &heard, os.Stderr
	require.NoError(t, program.Start())
	c, err := origin.AcceptTCP()
	require.NoError(t, err)
	defer c.Close()
	word := make([]byte, 6)
	_, err = io.ReadFull(c, word)
	require.NoError(t, err)
	require.Equal(t, "hello\n", string(word))
	st := s.status()
	require.Equal(t, cgroup, st.Cgroup)
	require.Equal(t, 1, st.Remote.Sockets)
	require.Zero(t, st.Remote.Outbound, "the records went with the connection")
	require.Equal(t, 1, st.Records)
	require.NotZero(t, st.Datagrams.MaxBytes)
	require.EqualValues(t, 2, st.Callouts["redirect"].Decisions)

	// Under another policy that lets it the connection goes on, and the proxy begins none that it blocks.
	put(t, filepath.Join(dir, "policy.yaml"), policy+"  - {name: closed, layer: ALE_AUTH_CONNECT, action: block, conditions: [{field: IP_REMOTE_PORT, value: 8999}]}\n")
	s.wait("policy in force")
	blocked := exec.Command("bash", "-c", `exec 3<>/dev/tcp/127.0.0.1/8999 && cat <&3`)
	blocked.SysProcAttr = in
	out, err := blocked.CombinedOutput()
	require.NoError(t, err)
	require.Contains(t, string(out), "connection reset by peer", "what the proxy says")

	s.signal(syscall.SIGTERM)
	s.wait("draining")
	_, err = io.WriteString(c, "goodbye\n")
	require.NoError(t, err)
	require.NoError(t, c.Close())
	require.NoError(t, program.Wait())
	require.Equal(t, "goodbye\n", heard.String())
	require.Equal(t, true, s.wait("ended")["in order"])
	require.NoError(t, s.cmd.Wait())
	var asked []string
	for _, line := range s.seen {
		for _, state := range []string{"not-redirected", "redirected-by-self"} {
			if strings.Contains(line, `"redirect_state":"`+state+`"`) {
				asked = append(asked, state)
			}
		}
	}
	require.Equal(t, []string{"not-redirected", "redirected-by-self"}, asked[:2], "once each: %s", strings.Join(s.seen, "\n"))
}
