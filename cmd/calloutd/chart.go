package main

import (
	"fmt"
	"html"
	"io"
	"math"
	"slices"
	"strings"
)

// The picture of a chart, in pixels.
const (
	chartWidth, chartHeight = 720, 340
	chartLeft, chartRight   = 70, 30
	chartTop, chartBottom   = 45, 55
	chartInnerW             = chartWidth - chartLeft - chartRight
	chartInnerH             = chartHeight - chartTop - chartBottom
)

// A chart is lines over an axis, as SVG.
type chart struct {
	title string
	x, y  axis
	lines []chartLine
}

// An axis goes from a value to another, by their logarithms if it is logarithmic.
type axis struct {
	from, to float64
	log      bool
	ticks    []tick
}

type tick struct {
	at    float64
	label string
}

type chartLine struct {
	name, color string
	points      [][2]float64
	values      bool // each point has its value beside it
}

// linear is an axis from zero to the first round value that top fits below, with a
// tick every fifth.
func linear(top float64, label func(float64) string) axis {
	const ticks = 5
	a := axis{to: roundUp(top/ticks) * ticks}
	a.every(ticks, label)
	return a
}

func (a *axis) every(parts int, label func(float64) string) {
	for k := range parts + 1 {
		v := a.to * float64(k) / float64(parts)
		a.ticks = append(a.ticks, tick{v, label(v)})
	}
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

// decades is a logarithmic axis of whole powers of ten around some values. What is
// less than one is drawn as one.
func decades(values []float64) axis {
	low, high := math.Floor(math.Log10(max(slices.Min(values), 1))), math.Ceil(math.Log10(max(slices.Max(values), 1)))
	high = max(high, low+1)
	a := axis{from: math.Pow(10, low), to: math.Pow(10, high), log: true}
	for e := low; e <= high; e++ {
		a.ticks = append(a.ticks, tick{math.Pow(10, e), fmt.Sprintf("%g", math.Pow(10, e))})
	}
	return a
}

// part is where between the ends of the axis a value is, from 0 to 1.
func (a *axis) part(v float64) float64 {
	if a.log {
		return math.Log10(max(v, 1)/a.from) / math.Log10(a.to/a.from)
	}
	return (v - a.from) / (a.to - a.from)
}

func (c *chart) at(x, y float64) (px, py float64) {
	return chartLeft + chartInnerW*c.x.part(x), chartTop + chartInnerH*(1-c.y.part(y))
}

// write writes the picture.
func (c *chart) write(out io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", chartWidth, chartHeight)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", chartWidth, chartHeight)
	label(&b, chartLeft, 20, "start", "black", c.title)
	for _, t := range c.y.ticks {
		_, y := c.at(c.x.from, t.at)
		fmt.Fprintf(&b, `<path d="M%d %.1fh%d" stroke="#ddd"/>`+"\n", chartLeft, y, chartInnerW)
		label(&b, chartLeft-6, y+4, "end", "#555", t.label)
	}
	for _, t := range c.x.ticks {
		x, _ := c.at(t.at, c.y.from)
		label(&b, x, chartHeight-chartBottom+18, "middle", "#555", t.label)
	}
	legend := float64(chartLeft)
	for i := range c.lines {
		l := &c.lines[i]
		c.line(&b, l)
		label(&b, legend, chartHeight-12, "start", l.color, "— "+l.name)
		legend += 40 + 7*float64(len(l.name))
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(out, b.String())
	return err
}

func (c *chart) line(b *strings.Builder, l *chartLine) {
	points := make([]string, len(l.points))
	for i, p := range l.points {
		x, y := c.at(p[0], p[1])
		points[i] = fmt.Sprintf("%.1f,%.1f", x, y)
		if l.values {
			fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`+"\n", x, y, l.color)
			label(b, x, y-8, "middle", l.color, fmt.Sprintf("%.0f", p[1]))
		}
	}
	fmt.Fprintf(b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="1.5"/>`+"\n", strings.Join(points, " "), l.color)
}

func label(b *strings.Builder, x, y float64, anchor, color, text string) {
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="%s" fill="%s">%s</text>`+"\n", x, y, anchor, color, html.EscapeString(text))
}
