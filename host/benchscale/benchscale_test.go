package benchscale_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/benchscale"
)

func TestRunMeasuresEachSize(t *testing.T) {
	var told []string
	rows, err := benchscale.Run(t.Context(), []int{10, 300}, func(s string) { told = append(told, s) })
	require.NoError(t, err)
	require.Equal(t, []string{"10 filters", "300 filters"}, told)
	require.Len(t, rows, 2)
	for i, n := range []int{10, 300} {
		r := rows[i]
		require.Equal(t, n, r.Filters)
		require.Positive(t, r.Match)
		require.Positive(t, r.Known)
		require.Positive(t, r.Update)
		require.Positive(t, r.Bytes)
		require.Positive(t, r.Pause)
		require.InDelta(t, r.Match/rows[0].Match, r.Ratio, 1e-9)
	}
}

func TestRunRefusesNoFilters(t *testing.T) {
	_, err := benchscale.Run(t.Context(), []int{0}, func(string) {})
	require.EqualError(t, err, "0 filters cannot be measured: expected at least 1")
}
