package main

import (
	"fmt"
	"io"
)

const mebibyte = 1 << 20

// drawMemory draws the samples over time.
func drawMemory(out io.Writer, r *soakResult, samples []sample) error {
	lines := []struct {
		name, color string
		of          func(sample) uint64
	}{
		{"process (RSS)", "#c0392b", func(s sample) uint64 { return s.rss }},
		{"Go heap", "#2c6fbb", func(s sample) uint64 { return s.heap }},
		{"guests", "#2e8b57", func(s sample) uint64 { return s.guest }},
	}
	c := chart{title: fmt.Sprintf("%s: memory in MiB over %.0f s, %d decisions, %d reloads", r.Policy, r.Seconds, r.Decisions, r.Reloads),
		x: axis{to: max(samples[len(samples)-1].at.Seconds(), 1e-9)}}
	c.x.every(5, func(v float64) string { return fmt.Sprintf("%.3g s", v) })
	top := 0.0
	for _, l := range lines {
		line := chartLine{name: l.name, color: l.color}
		for _, s := range samples {
			y := float64(l.of(s)) / mebibyte
			top = max(top, y)
			line.points = append(line.points, [2]float64{s.at.Seconds(), y})
		}
		c.lines = append(c.lines, line)
	}
	c.y = linear(top, func(v float64) string { return fmt.Sprintf("%g", v) })
	return c.write(out)
}
