package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/calloutd/calloutd/host/policyfile"
	"github.com/calloutd/calloutd/host/policyrun"
	"github.com/calloutd/calloutd/host/policytest"
	"github.com/calloutd/calloutd/host/policytrace"
)

func newDiff() *cobra.Command {
	var o diffOptions
	cmd := &cobra.Command{
		Use:   "diff OLD [NEW] [--over FILE]",
		Short: "Show which connections two policies decide differently",
		Long: `Diff decides connections with both policies and shows those for which the action, the
destination or what a redirect tells the proxy differs, with both ways through the
layers. The connections are those of a flight file, which run --record and record write,
or of a text, one a line: PROGRAM DEST [PROTOCOL [USER]], the user as a number. Without a
file they are searched for: at the boundaries of everything that the filters, sets, tables
and configurations of both policies name. Changes with the same cause are shown once.

With --with both stand beside policies of other providers, or models of them. Without
NEW the policy alone is compared with the policy beside them: what they change.

It ends with code 1 when a change is one of --fail-on.`,
		Example: `  calloutd diff old.yaml new.yaml
  calloutd diff old.yaml new.yaml --over make.flight --fail-on 'block->permit'
  calloutd diff policy.yaml --with vpn-kill-switch`,
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: policyFiles,
		RunE:              tidily(func(cmd *cobra.Command, args []string) error { return o.diff(cmd, args) }),
	}
	jsonFlag(cmd, &o.json)
	f := cmd.Flags()
	f.StringVar(&o.over, "over", "", "flight file or text of connections; - is standard input")
	f.StringSliceVar(&o.failOn, "fail-on", nil, "end with code 1 on such a change: FROM->TO with permit, block, redirect or any")
	completeFlag(cmd, "fail-on", "permit->block", "block->permit", "permit->redirect", "redirect->permit", "any->block", "any->permit", "any->redirect")
	o.beside.flag(cmd)
	f.IntVar(&o.limit, "limit", 20000, "how many connections the search tries at most")
	_ = cmd.MarkFlagFilename("over") // fails only for a flag that does not exist
	return cmd
}

type diffOptions struct {
	over   string
	failOn []string
	limit  int
	json   bool
	beside beside
}

// A group is changes with one cause, of which the first is shown.
type group struct {
	*policytest.Change
	count int
}

// A side is one of the two policies that are compared.
type side struct {
	file, name string
	beside     *beside
}

func (o *diffOptions) sides(args []string) ([]side, error) {
	with := &o.beside
	for i := range args {
		var err error
		if args[i], err = policyAt(args[i]); err != nil {
			return nil, err
		}
	}
	if len(args) == 1 {
		if len(with.words) == 0 {
			return nil, errors.New("diff of one policy needs --with: what it is to stand beside")
		}
		return []side{{args[0], args[0], new(beside)}, {args[0], args[0] + " with " + strings.Join(with.words, " and "), with}}, nil
	}
	return []side{{args[0], args[0], with}, {args[1], args[1], with}}, nil
}

func (o *diffOptions) diff(cmd *cobra.Command, args []string) error {
	sides, err := o.sides(args)
	if err = errors.Join(err, o.check()); err != nil {
		return err
	}
	ctx := cmd.Context()
	var worlds []*policytest.World
	for _, s := range sides {
		loaded := doing(cmd.ErrOrStderr(), "loading "+s.name)
		p, err := s.beside.describe(ctx, s.file, policyrun.Description{Options: newTracer(io.Discard, false, false).options()})
		loaded()
		if err != nil {
			return err
		}
		defer p.Close()
		worlds = append(worlds, policytrace.World(p))
	}
	connections, all, err := o.connections(worlds, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	groups, tried, err := groupChanges(ctx, policytest.Compare(worlds[0], worlds[1]), connections)
	if err != nil {
		return err
	}
	if tried == 0 { // No change would say that all is as it was.
		return fmt.Errorf("--over %s: nothing was compared: it has no connections", policyfile.ShownPath(o.over))
	}
	if err := o.write(cmd.OutOrStdout(), groups, tried, all, sides[0].name, sides[1].name); err != nil {
		return err
	}
	if slices.ContainsFunc(groups, func(g *group) bool { return o.fails(g.Change) }) {
		return exitCode(codeNo)
	}
	return nil
}

func (o *diffOptions) check() error {
	known := []string{policytest.Permit, policytest.Block, policytest.Redirect, "any"}
	for _, f := range o.failOn {
		from, to, ok := strings.Cut(f, "->")
		if !ok || !slices.Contains(known, from) || !slices.Contains(known, to) {
			return fmt.Errorf("--fail-on %q: expected FROM->TO with %s, such as block->permit", f, strings.Join(known, ", "))
		}
	}
	if o.limit < 1 {
		return fmt.Errorf("--limit %d: expected a number from 1", o.limit)
	}
	return nil
}

func (o *diffOptions) fails(c *policytest.Change) bool {
	return slices.ContainsFunc(o.failOn, func(f string) bool {
		from, to, _ := strings.Cut(f, "->")
		return (from == "any" || from == c.Before.Action) && (to == "any" || to == c.After.Action)
	})
}

// groupChanges puts changes with one cause together: there are not many causes,
// however many connections there are.
func groupChanges(ctx context.Context, c *policytest.Comparison, connections iter.Seq2[policytest.Question, error]) (groups []*group, tried int, err error) {
	byCause := map[string]*group{}
	tried, err = c.Over(ctx, connections, func(change *policytest.Change) error {
		cause := change.Cause()
		if g := byCause[cause]; g != nil {
			g.count++
			return nil
		}
		g := &group{Change: change, count: 1}
		byCause[cause], groups = g, append(groups, g)
		return c.Explain(ctx, change)
	})
	return groups, tried, err
}

func (o *diffOptions) write(out io.Writer, groups []*group, tried, all int, before, after string) error {
	changed := 0
	for _, g := range groups {
		changed += g.count
		if err := o.writeGroup(out, g, before, after); err != nil {
			return err
		}
	}
	if o.json {
		return encode(out, map[string]any{"event": "summary", "connections": tried, "changed": changed})
	}
	fmt.Fprintf(out, "%s of %s connections change", count(changed), count(tried))
	if all > tried {
		fmt.Fprintf(out, "; %s more are at the boundaries of these policies, see --limit", count(all-tried))
	}
	_, err := fmt.Fprintln(out)
	return err
}

func (o *diffOptions) writeGroup(out io.Writer, g *group, before, after string) error {
	if o.json {
		return encode(out, map[string]any{"event": "change", "kind": g.Kind(), "connection": policytest.Describe(&g.In), "like_it": g.count - 1,
			"before": g.BeforeTrace, "after": g.AfterTrace})
	}
	fmt.Fprintf(out, "%s: %s\n", g.Kind(), policytrace.Clean(policytest.Describe(&g.In)))
	for _, t := range []struct{ file, trace string }{{before, g.BeforeTrace}, {after, g.AfterTrace}} {
		fmt.Fprintf(out, "  %s:\n    %s\n", t.file, strings.ReplaceAll(strings.TrimRight(t.trace, "\n"), "\n", "\n    "))
	}
	if g.count > 1 {
		fmt.Fprintf(out, "  and %s more with the same cause\n", count(g.count-1))
	}
	return nil
}

// encode writes an object in a line, with > as it is.
func encode(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
