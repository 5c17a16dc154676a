package guest_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/guest"
)

// The lines are those of testdata/lines.c, although the rewriting moved its code.
func TestTrapsSayWhere(t *testing.T) {
	m := load(t, "lines", guest.ModuleOptions{Slots: 1, MaxFailures: -1})
	for port, want := range map[uint16]string{
		2: `callout "lines" failed: wasm error: integer divide by zero in divide (../host/guest/testdata/lines.c:10:14) < parse (../host/guest/testdata/lines.c:20:16) < `,
		3: `callout "lines" failed: the fuel budget is spent (endless loop or recursion?) in spin (../host/guest/testdata/lines.c:13)`,
	} {
		_, err := ask(m, call(port))
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "\n")
	}
}
