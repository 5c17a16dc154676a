package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/calloutd/calloutd/host/policyfuzz"
	"github.com/calloutd/calloutd/host/policytest"
	"github.com/calloutd/calloutd/host/policytrace"
	"github.com/calloutd/calloutd/sdk/project/wholefile"
)

func newFuzz() *cobra.Command {
	var o fuzzOptions
	cmd := &cobra.Command{
		Use:   "fuzz [POLICY]",
		Short: "Search for connections that a policy decides in a way that cannot be meant",
		Long: `Fuzz tries connections at the boundaries of the policy and changes those that reach
something new: a filter, an answer, or code of a callout. It looks for callouts that
fail, do not end or redirect where there is no request to change, proxies' connections
that come back to the proxy, questions that have two answers, and the policy's
invariants. Each fault is shown once, with the smallest connection that has it, and
written as a case that calloutd test runs. Nothing is connected.

The same seed tries the same connections. It ends with code 1 when it found something.`,
		Example: `  calloutd fuzz
  calloutd fuzz policy.yaml --seed 7 --limit 1000000 --out -`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: policyFiles,
		RunE:              onPolicy(o.fuzz),
	}
	jsonFlag(cmd, &o.json)
	f := cmd.Flags()
	f.Uint64Var(&o.seed, "seed", 1, "where the search begins")
	f.IntVar(&o.limit, "limit", 50000, "how many connections are tried")
	f.StringVarP(&o.out, "out", "o", "", "file of cases to add findings to; - writes none (default: POLICY_fuzz_test.yaml beside it)")
	return cmd
}

type fuzzOptions struct {
	seed  uint64
	limit int
	out   string
	json  bool
}

func (o *fuzzOptions) fuzz(cmd *cobra.Command, policy string) error {
	if o.limit < 1 {
		return fmt.Errorf("--limit %d: expected a number from 1", o.limit)
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt)
	defer stop()
	code := codes{search: true}
	loaded := doing(cmd.ErrOrStderr(), "loading "+policy)
	p, err := code.describe(ctx, policy, nil)
	loaded()
	switch {
	case err != nil && ctx.Err() != nil: // It would blame the module that was loading.
		return exitCode(codeSignalled + int(syscall.SIGINT))
	case err != nil:
		return err
	}
	defer p.Close()
	bar, tried := newProgress(cmd.ErrOrStderr(), int64(o.limit), "connections"), 0
	found, err := policyfuzz.Search(ctx, policyfuzz.Options{World: policytrace.World(p), Seed: o.seed, Limit: o.limit, Progress: code.ran, Numbers: code.constants(),
		Tried: func(n int) { tried = n; bar.at(int64(n), n) }})
	bar.end()
	if err != nil && ctx.Err() == nil {
		return err
	}
	if err := o.report(cmd.OutOrStdout(), found, tried); err != nil {
		return err
	}
	if len(found) == 0 {
		return nil
	}
	if err := o.keep(cmd, policy, found); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	return exitCode(codeNo)
}

// ran is how many blocks of callouts' code ran.
func (cs *codes) ran() (n int) {
	for _, m := range cs.all {
		for _, ran := range m.guest.Coverage().Ran {
			if ran {
				n++
			}
		}
	}
	return n
}

// maxConstants bounds the numbers of a callout that are tried.
const maxConstants = 256

// constants are the numbers in the code of callouts that is theirs. Where libraries
// cannot be told apart there are too many to try.
func (cs *codes) constants() (all []uint32) {
	for _, m := range cs.all {
		var own []uint32
		for _, b := range m.guest.Coverage().Blocks {
			if policytest.Own(&b) {
				own = append(own, b.Constants...)
			}
		}
		slices.Sort(own)
		if own = slices.Compact(own); len(own) <= maxConstants {
			all = append(all, own...)
		}
	}
	return all
}

func (o *fuzzOptions) report(out io.Writer, found []policyfuzz.Finding, tried int) error {
	for i := range found {
		f := &found[i]
		if o.json {
			if err := encode(out, map[string]any{"event": "fault", "kind": f.Kind, "who": f.Who, "why": f.Why, "connection": policytest.Describe(&f.In), "tried": f.Tried}); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(out, "%s\n  %s\n", policytrace.Clean(policytest.Describe(&f.In)), policytrace.Clean(f.Fault.String()))
	}
	if o.json {
		return encode(out, map[string]any{"event": "summary", "connections": tried, "faults": len(found)})
	}
	_, err := fmt.Fprintf(out, "%s tried, %s\n", connections(tried), counted(len(found), "fault"))
	return err
}

// keep adds findings to a file of cases, unless it has them.
func (o *fuzzOptions) keep(cmd *cobra.Command, policy string, found []policyfuzz.Finding) error {
	if o.out == "-" {
		return nil
	}
	file := o.out
	if file == "" {
		file = strings.TrimSuffix(policy, filepath.Ext(policy)) + "_fuzz_test.yaml"
	}
	unlock, err := alone(cmd, file)
	if err != nil {
		return err
	}
	defer unlock()
	src, err := wholefile.Read(file)
	if errors.Is(err, fs.ErrNotExist) {
		if src, err = beginCases(file, policy); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	text, added := strings.TrimRight(string(src), "\n")+"\n", 0
	for i := range found {
		if !strings.Contains(text, fmt.Sprintf("name: %q\n", found[i].Title())) {
			text, added = text+found[i].Case(), added+1
		}
	}
	if _, err := policytest.Parse(file, []byte(text)); err != nil {
		return fmt.Errorf("the cases do not fit into the file: %w", err)
	}
	if err := wholefile.Write(file, []byte(text)); err != nil {
		return err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "calloutd: %s added to %s\n", counted(added, "case"), file)
	return nil
}

// beginCases is a file of cases without any, which names the policy as seen from it.
func beginCases(file, policy string) ([]byte, error) {
	at, err1 := filepath.Abs(filepath.Dir(file))
	to, err2 := filepath.Abs(policy)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	if near, err := filepath.Rel(at, to); err == nil {
		to = near
	}
	return []byte(policyfuzz.Begin(filepath.ToSlash(to))), nil
}
