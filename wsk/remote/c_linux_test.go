package remote_test

import (
	"context"
	"encoding/hex"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/wsk/remote"
	"github.com/calloutd/calloutd/wsk/wsknet"
)

// The C header compiles without a warning, as C and as C++, and gets the answers
// that the Go client gets.
func TestC(t *testing.T) {
	for _, compiler := range []string{"gcc -std=c99", "clang -std=c99", "g++ -std=c++11"} {
		t.Run(compiler, func(t *testing.T) {
			words := strings.Fields(compiler)
			exe := compile(t, words[0], words[1:]...)
			s := newSite(t, remote.Options{})
			_, accepted := s.redirected()
			c := s.client()
			records, err := c.RedirectRecords(t.Context(), accepted)
			require.NoError(t, err)
			context, err := c.RedirectContext(t.Context(), accepted)
			require.NoError(t, err)
			f, err := accepted.File()
			require.NoError(t, err)
			defer f.Close()
			cmd := exec.CommandContext(t.Context(), exe, s.path)
			cmd.ExtraFiles = []*os.File{f}
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, "%s", out)
			require.Equal(t, []string{
				"probe 0xC0000023 - the buffer is too small", "size 104",
				"records 0x00000000 - -", hex.EncodeToString(records),
				"context 0x00000000 - -", hex.EncodeToString(context),
				"original 0x00000000 - -", destination,
				"set 0x00000000 - -",
				"forged 0xC0000022 AMB-13 redirect: not a record that this engine sealed: the seal does not fit",
				"unconnected 0xC0000225 RED-Q-11 the socket is not connected",
				"stdin 0xC0000008 - the descriptor is no socket: socket operation on non-socket",
				"closed 0xC00000A3 - Bad file descriptor",
				"again 0x00000000 - -",
				"nobody 0xC00000A3 - No such file or directory",
			}, strings.Split(strings.TrimSpace(string(out)), "\n"))
			require.Equal(t, 1, s.service.Stats().Outbound)
		})
	}
}

// A link-local destination is one of an interface, for either client.
func TestOriginalDestinationHasItsScope(t *testing.T) {
	const to = "[fe80::9%7]:80"
	s := newSite(t, remote.Options{})
	proxy, err := net.ListenTCP("tcp6", &net.TCPAddr{IP: net.IPv6loopback})
	require.NoError(t, err)
	defer proxy.Close()
	_, _, err = s.Engine.RegisterCallout("six", fwps.CalloutFunc(func(_ context.Context, _ *fwps.Call, v *fwps.Verdict) error {
		v.Action, v.Redirect, v.To, v.TargetPID, v.Context = fwp.ActionPermit, true, proxy.Addr().(*net.TCPAddr).AddrPort(), uint32(os.Getpid()), []byte("six")
		return nil
	}))
	require.NoError(t, err)
	s.Add(t, fwpm.Filter{ID: 9, Name: "six", Layer: fwpm.LayerALEConnectRedirectV6, Action: fwp.ActionCalloutUnknown, Callout: "six"})
	app, err := (&wsknet.Dialer{Client: s.Client.Client}).DialContext(t.Context(), "tcp", to)
	require.NoError(t, err)
	defer app.(*wsknet.Conn).Abort()
	accepted, err := proxy.AcceptTCP()
	require.NoError(t, err)
	defer accepted.Close()
	got, err := s.client().OriginalDestination(t.Context(), accepted)
	require.NoError(t, err)
	require.Equal(t, to, got.String())

	f, err := accepted.File()
	require.NoError(t, err)
	defer f.Close()
	cmd := exec.CommandContext(t.Context(), compile(t, "gcc", "-std=c99"), s.path)
	cmd.ExtraFiles = []*os.File{f}
	out, err := cmd.Output()
	require.NoError(t, err)
	require.Contains(t, string(out), "\n"+to+"\n")
}

func compile(t *testing.T, compiler string, flags ...string) string {
	if _, err := exec.LookPath(compiler); err != nil {
		require.Empty(t, os.Getenv("CI"), "%s is missing in CI", compiler)
		t.Skipf("%s is not installed", compiler)
	}
	exe := filepath.Join(t.TempDir(), "client")
	args := append(flags, "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1", "-I../../sdk/c", "-o", exe, "testdata/client.c")
	out, err := exec.CommandContext(t.Context(), compiler, args...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return exe
}
