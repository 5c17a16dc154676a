package main

import (
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/calloutd/calloutd/host/benchscale"
)

func newBenchScale() *cobra.Command {
	var o benchScaleOptions
	cmd := &cobra.Command{
		Use:   "scale",
		Short: "Measure how costs grow with the number of filters",
		Long: `Scale makes policies like those of a large site, with prefixes, ports and ranges of
them, programs and users in three sublayers, and measures each: what a classification costs, and
how many times that of the smallest policy; one whose decision is known (64 filters and more have a
cache); what the program takes beside the policy; a change in which one filter goes and one comes;
and the longest pause of a collection of garbage.

Times are of the thread, the best of several rounds of 4,096 connections, half of them aimed at
filters. Compare the ratios: the times are of this machine in this minute. A million filters take
about half a minute and two gigabytes of memory.`,
		Example: `  calloutd bench scale
  calloutd bench scale --sizes 10,1000 --json
  calloutd bench scale --plot scale.svg`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd) },
	}
	jsonFlag(cmd, &o.json)
	f := cmd.Flags()
	f.IntSliceVar(&o.sizes, "sizes", benchscale.Sizes, "the numbers of filters")
	f.StringVar(&o.svg, "plot", "", "draw it into this file")
	_ = cmd.MarkFlagFilename("plot", "svg") // fails only for a flag that does not exist
	return cmd
}

type benchScaleOptions struct {
	sizes []int
	svg   string
	json  bool
}

func (o *benchScaleOptions) run(cmd *cobra.Command) error {
	if o.svg != "" {
		if err := canWrite("--plot", o.svg); err != nil {
			return err
		}
	}
	rows, err := benchscale.Run(cmd.Context(), o.sizes, func(s string) { fmt.Fprintln(cmd.ErrOrStderr(), "measuring", s) })
	if err != nil {
		return err
	}
	if o.svg != "" {
		if err := draw(o.svg, rows); err != nil {
			return err
		}
	}
	if o.json {
		for _, r := range rows {
			if err := encode(cmd.OutOrStdout(), r); err != nil {
				return err
			}
		}
		return nil
	}
	return writeScale(cmd.OutOrStdout(), rows)
}

func draw(path string, rows []benchscale.Row) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := drawScale(f, rows); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return f.Close()
}

// drawScale draws what is measured over the number of filters, both axes logarithmic.
func drawScale(out io.Writer, rows []benchscale.Row) error {
	lines := []struct {
		name, color string
		of          func(benchscale.Row) float64
	}{
		{"classification", "#2c6fbb", func(r benchscale.Row) float64 { return r.Match }},
		{"a known one", "#2e8b57", func(r benchscale.Row) float64 { return r.Known }},
		{"change of one filter for another", "#c0392b", func(r benchscale.Row) float64 { return r.Update }},
	}
	c := chart{title: "nanoseconds over the number of filters"}
	var sizes, times []float64
	for _, l := range lines {
		line := chartLine{name: l.name, color: l.color, values: true}
		for _, r := range rows {
			sizes, times = append(sizes, float64(r.Filters)), append(times, l.of(r))
			line.points = append(line.points, [2]float64{float64(r.Filters), l.of(r)})
		}
		c.lines = append(c.lines, line)
	}
	c.x, c.y = decades(sizes), decades(times)
	return c.write(out)
}

func writeScale(out io.Writer, rows []benchscale.Row) error {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "filters\tmatch\tratio\tknown\tmemory a filter\tupdate\tcollector's pause\t")
	for _, r := range rows {
		fmt.Fprintf(w, "%d\t%.0f ns\t%.1f\t%.0f ns\t%.0f B\t%.0f ns\t%.0f µs\t\n", r.Filters, r.Match, r.Ratio, r.Known, r.Bytes, r.Update, r.Pause/1000)
	}
	return w.Flush()
}
