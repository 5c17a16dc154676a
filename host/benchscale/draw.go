package benchscale

import (
	"fmt"
	"io"
	"math"
	"strings"
)

// The picture, in pixels.
const (
	width, height = 720, 360
	left, right   = 70, 30
	top, bottom   = 50, 60
)

// Draw writes the rows as SVG: what a classification and a change cost, over the
// number of filters, both axes logarithmic.
func Draw(out io.Writer, rows []Row) error {
	d := drawing{x: scale{from: left, to: width - right}, y: scale{from: height - bottom, to: top}}
	d.x.fit(rows, func(r Row) float64 { return float64(r.Filters) })
	d.y.fit(rows, func(r Row) float64 { return r.Match }, func(r Row) float64 { return r.Update })
	d.printf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`, width, height)
	d.printf(`<rect width="%d" height="%d" fill="white"/>`, width, height)
	d.printf(`<text x="%d" y="20">nanoseconds over the number of filters</text>`, left)
	for e := d.y.low; e <= d.y.high; e++ {
		y := d.y.at(math.Pow10(e))
		d.printf(`<path d="M%d %.1fH%d" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end" fill="#555">%g</text>`, left, y, width-right, left-6, y+4, math.Pow10(e))
	}
	for _, r := range rows {
		d.printf(`<text x="%.1f" y="%d" text-anchor="middle" fill="#555">%d</text>`, d.x.at(float64(r.Filters)), height-bottom+18, r.Filters)
	}
	d.series(rows, "classification", "#2c6fbb", left, func(r Row) float64 { return r.Match })
	d.series(rows, "change of one filter for another", "#c0392b", left+150, func(r Row) float64 { return r.Update })
	d.printf(`</svg>`)
	_, err := io.WriteString(out, d.String())
	return err
}

// A scale is logarithmic, from a power of ten to another, over some pixels.
type scale struct {
	from, to  int
	low, high int
}

func (s *scale) fit(rows []Row, of ...func(Row) float64) {
	s.low, s.high = math.MaxInt, math.MinInt
	for _, r := range rows {
		for _, f := range of {
			v := math.Log10(math.Max(f(r), 1))
			s.low, s.high = min(s.low, int(math.Floor(v))), max(s.high, int(math.Ceil(v)))
		}
	}
	s.high = max(s.high, s.low+1)
}

func (s *scale) at(v float64) float64 {
	part := (math.Log10(math.Max(v, 1)) - float64(s.low)) / float64(s.high-s.low)
	return float64(s.from) + part*float64(s.to-s.from)
}

type drawing struct {
	strings.Builder
	x, y scale
}

func (d *drawing) printf(format string, args ...any) { fmt.Fprintf(d, format+"\n", args...) }

func (d *drawing) series(rows []Row, name, color string, legend int, of func(Row) float64) {
	var points []string
	for _, r := range rows {
		x, y := d.x.at(float64(r.Filters)), d.y.at(of(r))
		points = append(points, fmt.Sprintf("%.1f,%.1f", x, y))
		d.printf(`<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/><text x="%.1f" y="%.1f" text-anchor="middle" fill="%s">%.0f</text>`, x, y, color, x, y-8, color, of(r))
	}
	d.printf(`<polyline points="%s" fill="none" stroke="%s" stroke-width="1.5"/>`, strings.Join(points, " "), color)
	d.printf(`<text x="%d" y="%d" fill="%s">— %s</text>`, legend, height-12, color, name)
}
