package guest

import (
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// Who writes a guest reads of the limits there.
func TestTheABISaysWhatAStoreHolds(t *testing.T) {
	text, err := os.ReadFile("../../sdk/abi/ABI.md")
	require.NoError(t, err)
	require.Contains(t, string(text), fmt.Sprintf("The store has room for %d entries and %d MiB, a key for %d bytes, a value for %d; a callout has %d counters, with names of %d bytes, all printable.\n",
		maxEntries, maxStored>>20, maxKey, maxValue, maxMetrics, maxMetricName))
}
