//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// A report is all that was measured.
type report struct {
	Processors int               `json:"processors"`
	Rounds     int               `json:"rounds"`
	Clients    int               `json:"clients"` // that connect at once
	Rows       []row             `json:"rows"`
	Goals      []goal            `json:"goals"`
	Absent     map[string]string `json:"absent,omitempty"` // why a subject is left out
}

// A row is a subject: the medians, and the medians of what is compared to its
// base round by round.
type row struct {
	Name   string             `json:"name"`
	Base   string             `json:"base,omitempty"`
	Median map[metric]float64 `json:"median"`
	Ratio  map[metric]float64 `json:"ratio,omitempty"`
	Added  float64            `json:"added_us"` // to connect()
}

// A goal is what a number should be.
type goal struct {
	What  string  `json:"what"`
	Is    float64 `json:"is"`
	Goal  float64 `json:"goal"`
	Least bool    `json:"least"` // the goal is the least, not the most
}

func (g goal) met() bool { return g.Is == g.Goal || g.Is > g.Goal == g.Least }

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// pairs is the median of a function of two values of one round.
func pairs(a, b []float64, f func(a, b float64) float64) float64 {
	v := make([]float64, len(a))
	for i := range a {
		v[i] = f(a[i], b[i])
	}
	return median(v)
}

func divide(a, b float64) float64   { return a / b }
func subtract(a, b float64) float64 { return a - b }

func (r *report) fill(clients []*client) {
	by := map[string]*client{}
	for _, c := range clients {
		by[c.name] = c
		row := row{Name: c.name, Base: c.base, Median: map[metric]float64{}}
		for m, v := range c.by {
			row.Median[m] = median(v)
		}
		if base := by[c.base]; base != nil {
			row.Ratio = map[metric]float64{}
			for m, v := range c.by {
				if len(base.by[m]) > 0 {
					row.Ratio[m] = pairs(v, base.by[m], divide)
				}
			}
			row.Added = pairs(c.by[connectTime], base.by[connectTime], subtract)
		}
		r.Rows = append(r.Rows, row)
	}
	add := func(what, name, base string, m metric, f func(a, b float64) float64, limit float64, least bool) {
		if c, b := by[name], by[base]; c != nil && b != nil {
			r.Goals = append(r.Goals, goal{what, pairs(c.by[m], b.by[m], f), limit, least})
		}
	}
	for _, name := range []string{"run, permit", "run, redirect"} {
		add(name+": added to connect(), µs", name, plain, connectTime, subtract, 5, false)
	}
	for _, name := range []string{"attach, permit", "attach, redirect"} {
		add(name+": added to connect(), µs", name, plain, connectTime, subtract, 1, false)
	}
	add("run, permit: connections a second of many clients", "run, permit", plain, manyRate, func(a, _ float64) float64 { return a }, 20_000, true)
	add("run, redirect: bytes to plain", "run, redirect", plain, throughput, divide, 0.98, true)
	add("forward: processor time of a connection added to run, redirect, µs", "run, redirect to forward", "run, redirect", processorTime, subtract, 100, false)
	add("forward: bytes to nginx stream", "run, redirect to forward", "nginx stream", throughput, divide, 1, true)
}

func (r *report) json(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// table prints Markdown.
func (r *report) table(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 1, ' ', tabwriter.AlignRight|tabwriter.Debug)
	fmt.Fprintf(t, "| \tconnect, µs\tadded\tconnects/s\tto plain\tof %d clients\tto plain\tMB/s\tto plain\tping, µs\tto plain\tprocessor, µs\t\n", r.Clients)
	fmt.Fprintln(t, "|"+strings.Repeat(" ---\t", 12))
	for _, x := range r.Rows {
		cells := []string{fmt.Sprintf("| %-36s", x.Name), x.cell(connectTime, "%.1f"), "", x.cell(oneRate, "%.0f"), x.ratio(oneRate), x.cell(manyRate, "%.0f"), x.ratio(manyRate),
			x.cell(throughput, "%.0f"), x.ratio(throughput), x.cell(pingTime, "%.1f"), x.ratio(pingTime), x.cell(processorTime, "%.0f")}
		if x.Base != "" {
			cells[2] = fmt.Sprintf("%+.1f", x.Added)
		}
		fmt.Fprintln(t, strings.Join(cells, "\t")+"\t")
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	for _, g := range r.Goals {
		fmt.Fprintf(w, "%s: %.4g, goal %.4g: %s\n", g.What, g.Is, g.Goal, map[bool]string{true: "met", false: "not met"}[g.met()])
	}
	for name, why := range r.Absent {
		fmt.Fprintf(w, "%s: %s\n", name, why)
	}
	return nil
}

func (x *row) cell(m metric, format string) string {
	v, ok := x.Median[m]
	if !ok {
		return ""
	}
	return fmt.Sprintf(format, v)
}

func (x *row) ratio(m metric) string {
	v, ok := x.Ratio[m]
	if !ok {
		return ""
	}
	return fmt.Sprintf("%.2f", v)
}
