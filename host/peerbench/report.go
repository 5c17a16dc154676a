package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// A report is all that was measured.
type report struct {
	Go         string `json:"go"`
	Processors int    `json:"processors"`
	Rounds     int    `json:"rounds"`
	Rows       []row  `json:"rows"`
}

func (r *report) json(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// table prints a table that is Markdown too.
func (r *report) table(w io.Writer) error {
	lines := [][]string{{"", "ns", "median", "B", "allocs", "to the closure", "done by the host"}}
	for _, x := range r.Rows {
		lines = append(lines, []string{x.Name, number(x.Ns), number(x.Median), number(x.Bytes), number(x.Allocs), number(x.Ratio), x.Host})
	}
	width := make([]int, len(lines[0]))
	for _, l := range lines {
		for k, cell := range l {
			width[k] = max(width[k], len(cell))
		}
	}
	var b strings.Builder
	for k, l := range lines {
		for i, cell := range l {
			if i == 0 || i == len(l)-1 {
				fmt.Fprintf(&b, "| %-*s ", width[i], cell)
			} else {
				fmt.Fprintf(&b, "| %*s ", width[i], cell)
			}
		}
		b.WriteString("|\n")
		if k == 0 {
			for i, n := range width {
				b.WriteString("|" + strings.Repeat("-", n+1))
				if i == 0 || i == len(width)-1 {
					b.WriteString("-")
				} else {
					b.WriteString(":")
				}
			}
			b.WriteString("|\n")
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// number prints three digits.
func number(x float64) string {
	switch {
	case x < 0.05:
		return "0"
	case x < 10:
		return fmt.Sprintf("%.1f", x)
	}
	digits := fmt.Sprintf("%.0f", x)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
