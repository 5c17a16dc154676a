package main

import (
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

func carry(client *remote.Client, in *remote.Conn) error {
	records, err := winsock.RedirectRecords(in)
	if err != nil {
		return err
	}
	to, err := winsock.OriginalDestination(in)
	if err != nil {
		return err
	}
	d := net.Dialer{Control: client.Control(records)}
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

// The whole loop with a proxy of its own process: a program in the cgroup is
// redirected to it, it asks for the socket that it accepted, and its own
// connection, from the same cgroup, is known as the callout's (SC-30). The policy
// changes while a connection is carried, and the daemon drains.
func TestServeCgroupWithARemoteProxy(t *testing.T) {
	cgroup, in := newCgroup(t)
	warm(t)
	dir := t.TempDir()
	proxy := exec.Command("remoteproxy", filepath.Join(dir, "remote.sock"))
	proxy.SysProcAttr, proxy.Stderr = in, os.Stderr
	stdin, err := proxy.StdinPipe()
	require.NoError(t, err)
	stdout, err := proxy.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, proxy.Start())
	defer func() { _ = proxy.Process.Kill(); _ = proxy.Wait() }()
	var at string
	_, err = fmt.Fscanln(stdout, &at)
	require.NoError(t, err)
	plugin, err := filepath.Abs("../../plugins/proxy-redirect/proxy-redirect.wasm")
	require.NoError(t, err)
	policy := fmt.Sprintf(`version: 1
callouts:
  - id: redirect
    wasm: %s
    config: {rules: [{destinations: [127.0.0.0/8], ports: ["8000-8999"], proxy: %q, proxy_pid: %d}]}
filters:
  - {name: to the proxy, layer: ALE_CONNECT_REDIRECT, action: callout, callout: redirect, conditions: [{field: IP_PROTOCOL, value: tcp}]}
`, plugin, at, proxy.Process.Pid)
	put(t, filepath.Join(dir, "policy.yaml"), policy)
	s := serve(t, dir, "--cgroup", cgroup, "--trace", "--strict-queries")
	_, err = io.WriteString(stdin, "\n")
	require.NoError(t, err)

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
	require.EqualValues(t, 2, st.Callouts["redirect"].Decisions)

	// Under another policy the connection goes on, and the proxy begins no new ones.
	put(t, filepath.Join(dir, "policy.yaml"), policy+"  - {name: closed, layer: ALE_AUTH_CONNECT, action: block, conditions: [{field: IP_REMOTE_PORT, value: 8000-8999}]}\n")
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
