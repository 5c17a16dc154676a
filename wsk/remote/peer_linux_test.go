package remote

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// The test binary is another program when it is called so: one that has connected.
func init() {
	path := os.Getenv("CALLOUTD_CONNECTS")
	if path == "" {
		return
	}
	c, err := net.Dial("unixpacket", path)
	if err != nil {
		panic(err)
	}
	_, _ = c.Read(make([]byte, 1)) // Until the service ends it.
	os.Exit(0)
}

// An update takes away the file of a program that goes on: it is still the one that the
// policy means.
func TestClientWhoseFileIsGone(t *testing.T) {
	dir := t.TempDir()
	socket, program := filepath.Join(dir, "s"), filepath.Join(dir, "proxy")
	binary, err := os.ReadFile(os.Args[0])
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(program, binary, 0o700))
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Net: "unixpacket", Name: socket})
	require.NoError(t, err)
	defer l.Close()
	cmd := exec.CommandContext(t.Context(), program)
	cmd.Env = append(os.Environ(), "CALLOUTD_CONNECTS="+socket)
	require.NoError(t, cmd.Start())
	c, err := l.AcceptUnix()
	require.NoError(t, err)
	require.NoError(t, os.Remove(program))
	p, err := peerOf(c)
	require.NoError(t, err)
	require.Equal(t, program, p.AppID)
	require.NoError(t, c.Close())
	require.NoError(t, cmd.Wait())
}

func TestClientsAreOfOneUserAndRoot(t *testing.T) {
	own := uint32(os.Geteuid())
	for uid, want := range map[uint32]bool{0: true, own: true, own + 1: false} {
		require.Equal(t, want, ownOrRoot(Peer{UID: uid}), "user %d", uid)
	}
}
