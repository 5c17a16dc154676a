package enforce

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestProbe(t *testing.T) {
	for _, c := range Probe() {
		t.Logf("%-45s %-11s supported=%v %s", c.Name, c.Need, c.Supported, c.Detail)
		require.NotEmpty(t, c.Detail)
		require.Equal(t, c.Supported, c.Why == "")
	}
}

func TestMissing(t *testing.T) {
	cs := []Capability{{Name: "a", Need: Optional}, {Name: "b", Need: Required, MinimumKernel: "9.9", Why: "no"}}
	err := Missing(cs)
	require.True(t, errors.Is(err, ErrNotSupported))
	require.EqualError(t, err, "b is not supported on this system (needs Linux 9.9): no")
	cs[1].Supported = true
	require.NoError(t, Missing(cs))
}
