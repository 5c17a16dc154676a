package carry

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/internal/clockset"
)

// A flow that is used neither ends nor stays when somebody sets the clock.
func TestTheClockIsSetWhileSomethingIsUsed(t *testing.T) {
	var u Used
	u.Note()
	for _, seconds := range []int64{0, 1 << 20, -1 << 20} {
		now := clockset.Later(time.Now(), seconds)
		require.Less(t, u.Idle(now), time.Minute, "set by %d s", seconds)
		require.GreaterOrEqual(t, u.Idle(now.Add(time.Hour)), time.Hour, "set by %d s", seconds)
	}
}
