//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Everything that is compared works: connections arrive where they should, and
// carry bytes. CI has all there is to compare.
func TestEverySubjectIsMeasured(t *testing.T) {
	if _, err := exec.LookPath("cc"); err != nil && os.Getenv("CI") == "" {
		t.Skip("its clients are in C and it has no compiler:", err)
	}
	b, err := newBench(t.Context())
	require.NoError(t, err)
	t.Cleanup(b.close)
	r, err := b.measure(subjects, size{connects: 20, clients: 4, each: 5, mebibytes: 1, pings: 10}, 1, io.Discard)
	require.NoError(t, err)
	if os.Getenv("CI") != "" {
		require.Empty(t, r.Absent)
	}
	require.Len(t, r.Rows, len(subjects)-len(r.Absent))
	for i, x := range r.Rows {
		want := []metric{connectTime, oneRate, manyRate}
		if x.Name != subjects[1].name {
			want = append(want, throughput, pingTime)
		}
		if !slices.Contains([]string{plain, plainRouted, "proxychains4, SOCKS5"}, x.Name) { // Something is in between.
			want = append(want, processorTime)
		}
		require.Len(t, x.Median, len(want), x.Name)
		for _, m := range want {
			if x.Name == "attach, permit" && m == processorTime {
				continue // The kernel decides alone.
			}
			require.Positive(t, x.Median[m], "%s: %s", x.Name, m)
		}
		require.Equal(t, i > 0 && x.Base != "", x.Ratio != nil, x.Name)
	}
	require.NotEmpty(t, r.Goals)

	var text, back bytes.Buffer
	require.NoError(t, r.json(&back))
	again := new(report)
	require.NoError(t, json.Unmarshal(back.Bytes(), again))
	require.Equal(t, r.Rows, again.Rows)
	require.NoError(t, r.table(&text))
	lines := strings.Split(text.String(), "\n")
	for _, line := range lines[:len(r.Rows)+2] {
		require.Equal(t, 13, strings.Count(line, "|"), "it is a table: %s", line)
	}
}

func TestGoals(t *testing.T) {
	for _, c := range []struct {
		goal
		met bool
	}{
		{goal{Is: 4, Goal: 5}, true},
		{goal{Is: 6, Goal: 5}, false},
		{goal{Is: 5, Goal: 5}, true},
		{goal{Is: 0.99, Goal: 0.98, Least: true}, true},
		{goal{Is: 0.97, Goal: 0.98, Least: true}, false},
		{goal{Is: 0.98, Goal: 0.98, Least: true}, true},
	} {
		require.Equal(t, c.met, c.goal.met(), c.goal)
	}
}
