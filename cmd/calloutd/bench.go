package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/policyrun"
	"github.com/calloutd/calloutd/host/policytest"
	"github.com/calloutd/calloutd/host/policytrace"
)

func newBench() *cobra.Command {
	var o benchOptions
	cmd := &cobra.Command{
		Use:   "bench [POLICY]",
		Short: "Measure what decisions of a policy cost",
		Long: `Bench decides the connections of the policy's cases again and again, or, where there are
none, some at the boundaries of what it names. A decision is one layer that the policy has
filters for. An empty policy decides the same ones in turns with it: the ratio of the two
is the number to compare, since both suffer from whatever else the machine does.

--soak decides that many times, or for that long, while every callout is loaded anew a
hundred times, and draws the memory of the process, of Go's heap and of the guests over
time. It ends with code 1 when memory grew. An interrupt ends it early, with what it saw.`,
		Example: `  calloutd bench examples/quickstart/policy.yaml
  calloutd bench --json
  calloutd bench --soak 10000000 --plot soak.svg`,
		Args: cobra.MaximumNArgs(1),
		// Any file: where files are chosen by extension shells would take scale for one.
		ValidArgsFunction: cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.soak != "" { // which says what it saw
				return onPolicy(o.bench)(cmd, args)
			}
			return tidily(onPolicy(o.bench))(cmd, args)
		},
	}
	jsonFlag(cmd, &o.json)
	f := cmd.Flags()
	f.DurationVar(&o.time, "time", time.Second, "how long to measure each of policy and empty policy")
	f.StringVar(&o.soak, "soak", "", "decide so many times or so long, such as 10000000 or 10m, and watch memory")
	f.StringVar(&o.plot, "plot", "soak.svg", "where --soak draws it")
	_ = cmd.MarkFlagFilename("plot", "svg") // fails only for a flag that does not exist
	cmd.AddCommand(newBenchScale())
	return cmd
}

type benchOptions struct {
	time       time.Duration
	soak, plot string
	json       bool
}

func (o *benchOptions) bench(cmd *cobra.Command, policy string) error {
	if o.time <= 0 {
		return fmt.Errorf("--time %v: expected more than nothing", o.time)
	}
	length, err := parseLength(o.soak)
	if err != nil {
		return err
	}
	if o.soak != "" {
		err = canWrite("--plot", o.plot)
	} else if cmd.Flags().Changed("plot") {
		err = errors.New("--plot is where --soak draws: give both")
	}
	if err != nil {
		return err
	}
	var p *policyrun.Policy
	err = untilEnded(cmd.Context(), func(ctx context.Context) (err error) {
		p, err = new(beside).describe(ctx, policy, policyrun.Description{Options: newTracer(io.Discard, false, false).options(), Measures: true})
		return err
	})
	if err != nil {
		return err
	}
	defer p.Close()
	x, err := mixOf(cmd.Context(), p, policy)
	if err != nil {
		return err
	}
	if o.soak != "" {
		return o.runSoak(cmd, policy, p, x, length)
	}
	// The main goroutine keeps to its thread, which makes it slow to hand over.
	done := make(chan *benchResult)
	bar := newProgress(cmd.ErrOrStderr(), parts, "decisions")
	go func() { done <- measure(cmd.Context(), p, x, o.time, bar) }()
	r := <-done
	bar.end()
	if err := cmd.Context().Err(); err != nil {
		return err
	}
	r.Policy, r.Connections, r.Source = policy, x.connections, x.source
	if o.json {
		return encode(cmd.OutOrStdout(), r)
	}
	return r.write(cmd.OutOrStdout())
}

// A mix is what is decided again and again.
type mix struct {
	source      string // where it comes from
	connections int
	asked       []fwps.Incoming // one for each layer of each connection
}

// maxMix is how many connections the search gives.
const maxMix = 1000

// mixOf takes connections through the layers once, and keeps what was asked of
// those that the policy has filters for, or of all if it has none.
func mixOf(ctx context.Context, p *policyrun.Policy, policy string) (*mix, error) {
	world := policytrace.World(p)
	x := &mix{source: "the boundaries of what it names"}
	connections, err := casesOf(p, policy, world)
	if err != nil {
		return nil, err
	}
	if len(connections) > 0 {
		x.source = "its cases"
	} else {
		policytest.Boundaries(world).Some(maxMix)(func(in fwps.Incoming) bool {
			connections = append(connections, in)
			return true
		})
	}
	filtered := map[fwpm.LayerID]bool{}
	for _, f := range p.File.Policy.Filters {
		filtered[f.Layer] = true
	}
	for _, in := range connections {
		asked := ways(ctx, world, in)
		x.connections++
		for k := range asked {
			if len(filtered) == 0 || filtered[asked[k].In.Layer] {
				x.asked = append(x.asked, asked[k].In)
			}
		}
	}
	if len(x.asked) == 0 {
		return nil, fmt.Errorf("%s: none of its %d connections comes to a layer that it has filters for", policy, x.connections)
	}
	return x, nil
}

// ways is what a connection is asked for. That it is blocked, or that nobody is
// there, ends it.
func ways(ctx context.Context, world *policytest.World, in fwps.Incoming) []policytest.Classification {
	r := world.Record()
	if in.Inbound {
		if f, err := r.Enforcer.Accept(ctx, in); err == nil {
			f.Detach()
		}
		return r.Asked
	}
	if s, f, err := policytest.Connect(ctx, r.Enforcer, in); err == nil {
		f.Detach()
		s.Close()
	}
	return r.Asked
}

// casesOf are the connections of the cases beside a policy, but for those that
// need the records of another.
func casesOf(p *policyrun.Policy, policy string, world *policytest.World) (out []fwps.Incoming, err error) {
	path := casesBeside(policy)
	src, err := readCases(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	suite, err := policytest.Parse(path, src)
	if err != nil {
		return nil, err
	}
	if err := suite.Bind(p.File, world.Proxies); err != nil {
		return nil, err
	}
	for _, c := range suite.Cases {
		for _, s := range c.Steps {
			if s.Alone() {
				out = append(out, s.Incoming)
			}
		}
	}
	return slices.Clip(out), nil
}

// emptyEngine decides everything by default (ARB-09): the floor.
func emptyEngine() *host.Engine { return host.New(host.Options{}) }
