package remote_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/wsk/remote"
)

const (
	killed = 20
	nobody = 65534
)

// The test binary is another program when it is called so: it asks for the records
// of the socket that is its descriptor 3.
func init() {
	path := os.Getenv("CALLOUTD_CHILD")
	if path == "" {
		return
	}
	if os.Getenv("CALLOUTD_CHILD_ASKS_ON") != "" {
		fmt.Println(askOn(path))
	} else {
		fmt.Println(ask(path))
	}
	os.Exit(0)
}

// askOn asks until it is killed, on several connections, and sets the records on sockets.
func askOn(path string) error {
	conn, err := net.FileConn(os.NewFile(3, "socket"))
	if err != nil {
		return err
	}
	ended := make(chan error)
	for range 4 {
		go func() {
			c, err := remote.Dial(context.Background(), path)
			for err == nil {
				var sealed []byte
				if sealed, err = c.RedirectRecords(context.Background(), conn.(*net.TCPConn)); err != nil {
					break
				}
				fmt.Println("asked")
				d := net.Dialer{ControlContext: c.Control(sealed)}
				if out, err := d.Dial("tcp4", conn.LocalAddr().String()); err == nil {
					out.Close()
				}
			}
			ended <- err
		}()
	}
	return <-ended
}

// Processes of a user without privileges that are killed in the middle of what they ask.
func TestProcessesThatAreKilled(t *testing.T) {
	s := newSite(t, remote.Options{Allow: func(remote.Peer) bool { return true }})
	require.NoError(t, os.Chmod(s.path, 0o777))
	for dir := filepath.Dir(s.path); dir != os.TempDir() && len(dir) > 1; dir = filepath.Dir(dir) {
		require.NoError(t, os.Chmod(dir, 0o711))
	}
	app, accepted := s.redirected()
	go func() { // Who the children connect to.
		for {
			c, err := s.proxy.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	f, err := accepted.File()
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, ping(s, t.Context()))
	idle := func() bool { return s.service.Stats().Clients == 0 }
	eventually(t, "the service is idle", idle)
	before := descriptors(t)
	for i := range killed {
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe") // Its folder is the user's who tests.
		cmd.Env = append(os.Environ(), "CALLOUTD_CHILD="+s.path, "CALLOUTD_CHILD_ASKS_ON=1")
		cmd.ExtraFiles = []*os.File{f}
		if os.Getuid() == 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		}
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		line, err := bufio.NewReader(out).ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, "asked\n", line)
		time.Sleep(time.Duration(i%10) * 200 * time.Microsecond)
		require.NoError(t, cmd.Process.Kill())
		require.ErrorContains(t, cmd.Wait(), "killed")
	}
	eventually(t, "none of them is a client", idle)
	require.NoError(t, s.service.Sweep(time.Now().Add(2*time.Minute))) // Nobody connects with what they set.
	require.Zero(t, s.service.Stats().Outbound)
	eventually(t, "their descriptors are closed", func() bool { return descriptors(t) <= before })
	_, err = s.client().RedirectRecords(t.Context(), accepted)
	require.NoError(t, err)
	app.Abort()
	accepted.Close()
	f.Close()
	eventually(t, "no record lives on", func() bool { return s.service.Stats().Sockets == 0 && s.ALE.LiveHops() == 0 })
}

func ask(path string) error {
	c, err := remote.Dial(context.Background(), path)
	if err != nil {
		return err
	}
	defer c.Close()
	conn, err := net.FileConn(os.NewFile(3, "socket"))
	if err != nil {
		return err
	}
	_, err = c.RedirectRecords(context.Background(), conn.(*net.TCPConn))
	return err
}

func child(t *testing.T, path string, conn *net.TCPConn) string {
	f, err := conn.File()
	require.NoError(t, err)
	defer f.Close()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "CALLOUTD_CHILD="+path)
	cmd.ExtraFiles = []*os.File{f}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return string(out)
}
