package main

import (
	"fmt"
	"html"
	"io"
	"math"
	"slices"
	"strings"
)

// The picture, in pixels.
const (
	plotWidth, plotHeight   = 720, 320
	plotLeft, plotRight     = 60, 20
	plotTop, plotBottom     = 40, 50
	plotLines               = 5
	plotInnerW, plotInnerH  = plotWidth - plotLeft - plotRight, plotHeight - plotTop - plotBottom
	mebibyte                = 1 << 20
	plotFont, plotLineWidth = 12, 1.5
)

// A series is a line of the picture.
type series struct {
	name, color string
	of          func(sample) uint64
}

var memorySeries = []series{
	{"process (RSS)", "#c0392b", func(s sample) uint64 { return s.rss }},
	{"Go heap", "#2c6fbb", func(s sample) uint64 { return s.heap }},
	{"guests", "#2e8b57", func(s sample) uint64 { return s.guest }},
}

// drawMemory writes the samples as SVG.
func drawMemory(out io.Writer, r *soakResult, samples []sample) {
	p := &plot{out: out, seconds: math.Max(samples[len(samples)-1].at.Seconds(), 1e-9)}
	for _, s := range memorySeries {
		for _, x := range samples {
			p.top = math.Max(p.top, float64(s.of(x))/mebibyte)
		}
	}
	p.top = roundUp(p.top/plotLines) * plotLines
	fmt.Fprintf(out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="%d">`+"\n", plotWidth, plotHeight, plotFont)
	fmt.Fprintf(out, `<rect width="%d" height="%d" fill="white"/>`+"\n", plotWidth, plotHeight)
	p.text(plotLeft, 20, "start", "black", fmt.Sprintf("%s: memory in MiB over %.0f s, %d decisions, %d reloads", r.Policy, r.Seconds, r.Decisions, r.Reloads))
	p.grid()
	at := plotLeft
	for _, s := range memorySeries {
		p.line(s, samples)
		p.text(at, plotHeight-12, "start", s.color, "— "+s.name)
		at += 130
	}
	fmt.Fprintln(out, "</svg>")
}

type plot struct {
	out          io.Writer
	seconds, top float64
}

// roundUp gives a number of one or two digits.
func roundUp(x float64) float64 {
	if x <= 0 {
		return 1
	}
	unit := math.Pow(10, math.Floor(math.Log10(x)))
	steps := []float64{1, 2, 2.5, 5, 10}
	return unit * steps[slices.IndexFunc(steps, func(s float64) bool { return x <= s*unit*(1+1e-9) })]
}

func (p *plot) text(x, y int, anchor, color, text string) {
	fmt.Fprintf(p.out, `<text x="%d" y="%d" text-anchor="%s" fill="%s">%s</text>`+"\n", x, y, anchor, color, html.EscapeString(text))
}

func (p *plot) grid() {
	for k := range plotLines + 1 {
		y := plotTop + plotInnerH*(plotLines-k)/plotLines
		fmt.Fprintf(p.out, `<path d="M%d %dh%d" stroke="#ddd"/>`+"\n", plotLeft, y, plotInnerW)
		p.text(plotLeft-6, y+4, "end", "#555", fmt.Sprintf("%g", p.top*float64(k)/plotLines))
		x := plotLeft + plotInnerW*k/plotLines
		p.text(x, plotHeight-plotBottom+16, "middle", "#555", fmt.Sprintf("%.3g s", p.seconds*float64(k)/plotLines))
	}
}

func (p *plot) line(s series, samples []sample) {
	var points []string
	for _, x := range samples {
		points = append(points, fmt.Sprintf("%.1f,%.1f", plotLeft+plotInnerW*x.at.Seconds()/p.seconds,
			plotTop+plotInnerH*(1-float64(s.of(x))/mebibyte/p.top)))
	}
	fmt.Fprintf(p.out, `<polyline points="%s" fill="none" stroke="%s" stroke-width="%g"/>`+"\n", strings.Join(points, " "), s.color, plotLineWidth)
}
