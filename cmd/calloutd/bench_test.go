package main

import (
	"bytes"
	"encoding/xml"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/policyrun"
)

func TestLengthsOfASoak(t *testing.T) {
	for text, want := range map[string]length{"": {}, "10": {decisions: 10}, "90s": {time: 90 * time.Second}} {
		got, err := parseLength(text)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	for _, text := range []string{"0", "-1", "0s", "ten", "1e7"} {
		_, err := parseLength(text)
		require.ErrorContains(t, err, "expected a number of decisions or a time", text)
	}
}

// Memory that grows all the time is told from memory that goes up and down.
func TestGrowthIsTold(t *testing.T) {
	run := func(of func(k int) uint64) *soakResult {
		s := &soak{p: new(policyrun.Policy)}
		for k := range 200 {
			s.samples = append(s.samples, sample{at: time.Duration(k) * time.Second, rss: of(k), heap: 1 << 20})
		}
		return s.result()
	}
	require.False(t, run(func(k int) uint64 { return uint64(k) << 20 }).Flat, "a MiB a second")
	require.True(t, run(func(k int) uint64 { return uint64(200+k%7*30) << 20 }).Flat, "a saw")
	require.True(t, run(func(k int) uint64 { return uint64(min(k, 20)) << 24 }).Flat, "warming up")
}

func TestPictureIsWhole(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, drawMemory(&b, &soakResult{Policy: "<&>.yaml", Seconds: 2}, []sample{{0, 3 << 20, 1 << 20, 0}, {2 * time.Second, 5 << 20, 2 << 20, 1 << 19}}))
	d := xml.NewDecoder(bytes.NewReader(b.Bytes()))
	for {
		if _, err := d.Token(); err == io.EOF {
			break
		} else {
			require.NoError(t, err)
		}
	}
	require.Equal(t, 3, strings.Count(b.String(), "<polyline"))
	require.Contains(t, b.String(), "&lt;&amp;&gt;.yaml")
	require.Contains(t, b.String(), `points="70.0,141.0 690.0,45.0"`, "the process: the whole width, and the top is 5 MiB")
}

func TestAxesHaveRoundNumbers(t *testing.T) {
	for x, want := range map[float64]float64{0: 1, 1: 1, 1.1: 2, 2.1: 2.5, 3: 5, 7: 10, 12: 20, 0.03: 0.05} {
		require.InDelta(t, want, roundUp(x), 1e-9)
	}
}
