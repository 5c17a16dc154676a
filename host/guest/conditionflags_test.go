package guest_test

import (
	"os"
	"regexp"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/fwp"
)

// Guests have a name for each flag that the engine knows, and for no other. The header for C
// is made of the table of which those of the other languages are made.
func TestGuestsHaveTheConditionFlags(t *testing.T) {
	header, err := os.ReadFile("../../sdk/c/callout.h")
	require.NoError(t, err)
	var all fwp.ConditionFlags
	for _, m := range regexp.MustCompile(`#define CALLOUT_CONDITION_FLAG_(\w+) (0x\w+)`).FindAllSubmatch(header, -1) {
		value, err := strconv.ParseUint(string(m[2]), 0, 32)
		require.NoError(t, err)
		flag, known := fwp.ParseConditionFlag(string(m[1]))
		require.True(t, known, "%s", m[1])
		require.EqualValues(t, flag, value, "%s", m[1])
		all |= flag
	}
	require.Equal(t, (^fwp.ConditionFlags(0)).Names(), all.Names())
}
