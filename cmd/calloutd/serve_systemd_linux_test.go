package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/cmd/calloutd/internal/control"
	"github.com/calloutd/calloutd/wsk/remote"
)

// The service manager's protocol: readiness, reloads, the watchdog, the end; and
// sockets that it made.
func TestServeUnderAServiceManager(t *testing.T) {
	need(t, "sh")
	dir := folder(t, servePolicy)
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	require.NoError(t, err)
	defer notify.Close()
	var files []*os.File
	for _, network := range []string{"unix", "unixpacket"} {
		l, err := remote.Listen(network, filepath.Join(dir, network+".passed"), 0o600)
		require.NoError(t, err)
		defer l.Close()
		f, err := l.File()
		require.NoError(t, err)
		defer f.Close()
		files = append(files, f)
	}
	cmd := exec.Command("sh", "-c", "LISTEN_PID=$$ WATCHDOG_PID=$$ exec calloutd serve --policy policy.yaml --log-format json")
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+notify.LocalAddr().String(), "WATCHDOG_USEC=2000000", "LISTEN_FDS=2", "LISTEN_FDNAMES=control:calloutd.socket")
	cmd.ExtraFiles = files
	s := start(t, dir, cmd)
	told := func(want string) {
		t.Helper()
		for b := make([]byte, 4096); ; {
			require.NoError(t, notify.SetReadDeadline(time.Now().Add(time.Minute)))
			n, err := notify.Read(b)
			require.NoError(t, err)
			if strings.HasPrefix(string(b[:n]), want) {
				return
			}
		}
	}
	told("READY=1\nSTATUS=policy 1 of policy.yaml, 1 filter")
	told("WATCHDOG=1")
	st, err := control.Ask(t.Context(), filepath.Join(dir, "unix.passed"))
	require.NoError(t, err)
	require.Equal(t, filepath.Join(dir, "unixpacket.passed"), st.Remote.Address)
	client, err := remote.Dial(t.Context(), st.Remote.Address)
	require.NoError(t, err)
	client.Close()
	s.signal(syscall.SIGHUP)
	told("RELOADING=1\nMONOTONIC_USEC=")
	told("READY=1\nSTATUS=policy 2 of policy.yaml, 1 filter")
	s.signal(syscall.SIGTERM)
	told("STOPPING=1")
	s.wait("ended")
	require.NoError(t, cmd.Wait())
	require.FileExists(t, filepath.Join(dir, "unix.passed"), "the socket is the service manager's")
}

func TestServeRefusesSocketsOfNoUse(t *testing.T) {
	need(t, "sh")
	dir := folder(t, servePolicy)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	require.NoError(t, err)
	defer f.Close()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "LISTEN_PID=$$ exec calloutd serve --policy policy.yaml")
	cmd.Dir, cmd.Env, cmd.ExtraFiles = dir, append(os.Environ(), "LISTEN_FDS=1", "LISTEN_FDNAMES=web"), []*os.File{f}
	r := finish(t, cmd)
	require.Equal(t, codeTool, r.code)
	require.Contains(t, r.stderr, `socket "web" of the service manager: it is tcp; remote is unixpacket (ListenSequentialPacket=), control unix (ListenStream=)`)
}
