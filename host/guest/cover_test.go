package guest_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/guest"
)

// lineRan reports whether a line of lines.c ran.
func lineRan(t *testing.T, m *guest.Module, line int) (ran bool) {
	t.Helper()
	c := m.Coverage()
	known := false
	for i, b := range c.Blocks {
		for _, l := range b.Lines {
			if strings.HasSuffix(l.File, "lines.c") && l.Line == line {
				known, ran = true, ran || c.Ran[i]
			}
		}
	}
	require.True(t, known, "line %d has no code", line)
	return ran
}

func TestCoverageIsOfAllInstances(t *testing.T) {
	m := load(t, "lines", guest.ModuleOptions{Cover: true, Slots: 2, MaxFailures: -1})
	require.False(t, lineRan(t, m, 21), "the self-test is nobody's case")
	require.NoError(t, m.Classify(t.Context(), call(9), new(fwps.Verdict)))
	require.True(t, lineRan(t, m, 21))
	require.False(t, lineRan(t, m, 10))
	require.Error(t, m.Classify(t.Context(), call(2), new(fwps.Verdict)))
	require.True(t, lineRan(t, m, 10), "an instance that trapped counts")
	require.False(t, lineRan(t, m, 15))
	require.Error(t, m.Classify(t.Context(), call(3), new(fwps.Verdict)), "fuel is what it is without coverage")
	require.True(t, lineRan(t, m, 15))
}

// Each version is covered for itself: what is refused, and what ends, is not mixed in.
func TestCoverageIsOfWhatIsLive(t *testing.T) {
	m := load(t, "lines", guest.ModuleOptions{Cover: true, Slots: 1, MaxFailures: -1})
	require.NoError(t, m.Classify(t.Context(), call(9), new(fwps.Verdict)))
	ran := ranBlocks(m)
	require.Error(t, m.Reload(t.Context(), wasm(t, "trapping"), nil))
	require.Equal(t, ran, ranBlocks(m))
	require.True(t, lineRan(t, m, 21))
	require.NoError(t, m.Reload(t.Context(), wasm(t, "lines"), nil))
	require.False(t, lineRan(t, m, 21), "it ran in the version before")
}

func TestWithoutTheOptionNothingIsCovered(t *testing.T) {
	c := load(t, "lines", guest.ModuleOptions{}).Coverage()
	require.Empty(t, c.Blocks)
	require.Empty(t, c.Ran)
}

func TestTrySaysWhyAConfigurationIsRefusedAndCovers(t *testing.T) {
	m := load(t, "lines", guest.ModuleOptions{Cover: true})
	before := ranBlocks(m)
	require.NoError(t, m.Try(nil))
	require.Greater(t, ranBlocks(m), before, "the question of the self-test")
	g := load(t, "good", guest.ModuleOptions{})
	require.ErrorContains(t, g.Try([]byte("!")), "start: ")
}

func ranBlocks(m *guest.Module) (n int) {
	for _, r := range m.Coverage().Ran {
		if r {
			n++
		}
	}
	return n
}

func TestACounterThatIsNotExportedIsAMistake(t *testing.T) {
	_, err := newRuntime(t).Load(t.Context(), "m", wasm(t, "good"), guest.ModuleOptions{Counters: []guest.Counter{{Export: "counters", Len: 1}}})
	require.ErrorContains(t, err, "the module does not export counters")
}
