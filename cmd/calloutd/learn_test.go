package main

import (
	"bufio"
	"bytes"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/flight"
	"github.com/calloutd/calloutd/sdk/project/filelock"
)

// A draft with such a path would not be a policy.
func TestAProgramThatAPolicyCannotNameIsLeftOut(t *testing.T) {
	file := filepath.Join(t.TempDir(), "odd.flight")
	w, err := flight.Append(file, flight.Header{Source: "a test"})
	require.NoError(t, err)
	for _, program := range []string{"/opt/a\nb", "/opt/a b é$", "/opt/\xff", "/opt/a\nb"} {
		require.NoError(t, w.Write(&flight.Entry{Program: program, Protocol: 6, Remote: netip.MustParseAddrPort("192.0.2.1:80")}))
	}
	require.NoError(t, w.Close())
	var errs bytes.Buffer
	seen, err := seenIn(file, &errs)
	require.NoError(t, err)
	require.Len(t, seen, 1)
	require.Equal(t, "/opt/a b é$", seen[0].Program)
	require.Equal(t, `calloutd: "/opt/a\nb" is left out: a policy cannot name a program with such characters
calloutd: "/opt/\xff" is left out: a policy cannot name a program with such characters
`, errs.String())
}

// What a draft does not permit is told, if only because it does not know of it.
func TestWhatIsTooMuchForADraftIsTold(t *testing.T) {
	before := maxSeen
	t.Cleanup(func() { maxSeen = before })
	maxSeen = 2
	file := filepath.Join(t.TempDir(), "many.flight")
	w, err := flight.Append(file, flight.Header{Source: "a test"})
	require.NoError(t, err)
	for _, port := range []uint16{1, 2, 1, 3, 4} {
		require.NoError(t, w.Write(&flight.Entry{Program: "/opt/scan", Protocol: 6, Remote: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), port)}))
	}
	require.NoError(t, w.Close())
	var errs bytes.Buffer
	seen, err := seenIn(file, &errs)
	require.NoError(t, err)
	require.Len(t, seen, 2)
	require.Equal(t, "calloutd: 2 connections came after the first 2 different ones and are left out: the policy may block them\n", errs.String())
}

// Each of them waits for the one that has the file, and then adds to what that left.
func TestExtendingAtTheSameTimeLosesNothing(t *testing.T) {
	dir := t.TempDir()
	policy := filepath.Join(dir, "mine.yaml")
	require.NoError(t, os.WriteFile(policy, []byte("version: 1\nfilters:\n  - {name: rest, layer: ALE_AUTH_CONNECT, action: block}\n"), 0o600))
	unlock, err := filelock.Lock(t.Context(), policy, nil)
	require.NoError(t, err)
	programs := []string{"/opt/one", "/opt/two", "/opt/three"}
	var ends []func()
	for _, program := range programs {
		file := filepath.Join(dir, filepath.Base(program)+".flight")
		w, err := flight.Append(file, flight.Header{Source: "a test"})
		require.NoError(t, err)
		require.NoError(t, w.Write(&flight.Entry{Program: program, Protocol: 6, Remote: netip.MustParseAddrPort("192.0.2.1:80")}))
		require.NoError(t, w.Close())
		ends = append(ends, waiting(t, "another calloutd is changing "+policy+": waiting for it", "learn", "--from", file, "--extend", policy))
	}
	unlock()
	for _, end := range ends {
		end()
	}
	got, err := os.ReadFile(policy)
	require.NoError(t, err)
	for _, program := range programs {
		require.Contains(t, string(got), `value: "`+program+`"`)
	}
	r := calloutd(t, "test", dir)
	require.Zero(t, r.code, r.stdout+r.stderr)
	for _, cases := range []string{"mine_test.yaml", "mine_learned_test.yaml", "mine_learned2_test.yaml"} {
		require.FileExists(t, filepath.Join(dir, cases))
	}
}

// waiting starts calloutd, returns when it has said what is expected, and then waits
// for its end.
func waiting(t *testing.T, said string, args ...string) (end func()) {
	cmd := exec.CommandContext(t.Context(), "calloutd", args...)
	stderr, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(stderr)
	require.True(t, lines.Scan())
	require.Equal(t, "calloutd: "+said, lines.Text())
	return func() {
		var more strings.Builder
		for lines.Scan() {
			more.WriteString(lines.Text() + "\n")
		}
		require.NoError(t, cmd.Wait(), more.String())
	}
}
