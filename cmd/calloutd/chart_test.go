package main

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/benchscale"
)

func TestScaleIsDrawnAsSVG(t *testing.T) {
	var out strings.Builder
	require.NoError(t, drawScale(&out, []benchscale.Row{{Filters: 10, Match: 80, Known: 80, Update: 900}, {Filters: 1000, Match: 210, Known: 40, Update: 4000}}))
	d := xml.NewDecoder(strings.NewReader(out.String()))
	circles := 0
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "circle" {
			circles++
		}
	}
	require.Equal(t, 6, circles)
	require.Contains(t, out.String(), ">4000</text>")
}

// A value is drawn between the ends of its axis, by its logarithm if the axis says so.
func TestAnAxisHasItsValuesInside(t *testing.T) {
	log := decades([]float64{0.5, 10, 4000})
	require.Equal(t, []float64{0, 0.25, 0.5, 1}, []float64{log.part(0.1), log.part(10), log.part(100), log.part(10_000)})
	require.Len(t, log.ticks, 5)
	lin := linear(9.3, func(float64) string { return "x" })
	require.Equal(t, []float64{0, 0.5, 1}, []float64{lin.part(0), lin.part(5), lin.part(10)})
	require.Len(t, lin.ticks, 6)
	one := decades([]float64{1})
	require.Equal(t, 1.0, one.part(10))
}
