package main

import (
	"bytes"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/flight"
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
