package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/calloutd/calloutd/host/flight"
	"github.com/calloutd/calloutd/host/policydraft"
	"github.com/calloutd/calloutd/host/policyrun"
	"github.com/calloutd/calloutd/host/policytest"
	"github.com/calloutd/calloutd/host/policytrace"
	"github.com/calloutd/calloutd/sdk/project"
	"github.com/calloutd/calloutd/sdk/project/filelock"
	"github.com/calloutd/calloutd/sdk/project/wholefile"
)

func newLearn() *cobra.Command {
	var o learnOptions
	cmd := &cobra.Command{
		Use:   "learn {--out FILE | --extend FILE} [flags] [-- COMMAND [ARGS...]]",
		Short: "Watch a command and draft the policy that permits what it did",
		Long: `Learn runs a command with everything permitted (Linux), or reads a flight file (every
system), and writes a policy that permits the connections there were and blocks all
others, and cases for it. One program's connections to the same addresses are one filter;
of many addresses it takes the networks. Read the draft before you rely on it.

With --extend it decides with the policy that is there, adds filters for what that would
block and leaves the rest of the file as it is; it waits for another calloutd that is
changing it. What a filter cannot permit, because another one decides before it, is told.`,
		Example: `  calloutd learn --out make.yaml -- make test
  calloutd learn --extend make.yaml -- make install
  calloutd learn --from make.flight --out make.yaml`,
		ValidArgsFunction: completeCommand,
		RunE:              func(cmd *cobra.Command, args []string) error { return o.learn(cmd, args) },
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.StringVarP(&o.out, "out", "o", "", "policy to write")
	f.Var((*policyPath)(&o.extend), "extend", "policy to add filters to")
	f.StringVar(&o.from, "from", "", "flight file to learn from instead of a command")
	cmd.MarkFlagsMutuallyExclusive("out", "extend")
	cmd.MarkFlagsOneRequired("out", "extend")
	// They fail only for a flag that does not exist.
	_ = cmd.MarkFlagFilename("out", "yaml", "yml")
	_ = cmd.MarkFlagFilename("extend", "yaml", "yml")
	return cmd
}

type learnOptions struct{ out, extend, from string }

func (o *learnOptions) learn(cmd *cobra.Command, args []string) error {
	if (o.from == "") == (len(args) == 0) {
		return errors.New("expected either a command to watch or --from with a flight file")
	}
	free, err := o.writable()
	if err != nil {
		return err
	}
	defer free()
	of, code := strings.Join(args, " "), error(nil)
	if o.from == "" {
		tmp, err := project.TempDir("calloutd-learn-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(tmp)
		o.from = filepath.Join(tmp, "seen.flight")
		if code, err = watch(cmd, args, tmp, o.from); err != nil {
			return err
		}
	} else {
		of = o.from
	}
	seen, err := seenIn(o.from, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	if err := o.write(cmd, of, seen); err != nil {
		return err
	}
	return code
}

// writable finds out before a command runs what would be a pity after it. A draft's
// name is taken until free, so that nobody else drafts it meanwhile.
func (o *learnOptions) writable() (free func(), err error) {
	if o.extend != "" {
		err := wholefile.Regular(o.extend)
		if err == nil {
			err = changeable(o.extend)
		}
		if err != nil {
			return nil, fmt.Errorf("--extend: %w", err)
		}
		return func() {}, nil
	}
	if o.out == "-" {
		return nil, errors.New("--out -: expected a file, beside which the cases will stand")
	}
	f, err := os.OpenFile(o.out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil, fmt.Errorf("--out: %s is there already: --extend adds to it", o.out)
	case err != nil:
		return nil, fmt.Errorf("--out: %w", err)
	}
	return func() {
		if info, err := os.Stat(o.out); err == nil && info.Size() == 0 {
			_ = os.Remove(o.out) // Nothing was drafted.
		}
	}, f.Close()
}

// changeable says why a file could not be read and written.
func changeable(file string) error {
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), wholefile.Replaceable(file))
}

// A draft is a policy that is to be written, with the cases beside it.
type draft struct {
	policy     string
	src, cases []byte
	filters    int // of what was seen
}

func (o *learnOptions) write(cmd *cobra.Command, of string, seen []*flight.Entry) error {
	if o.extend == "" {
		filters := policydraft.Filters(seen)
		d := draft{o.out, policydraft.Policy(of, filters), policydraft.Cases(of, filepath.Base(o.out), seen, true), len(filters)}
		return d.save(cmd, seen)
	}
	unlock, err := alone(cmd, o.extend)
	if err != nil {
		return fmt.Errorf("--extend: %w", err)
	}
	defer unlock()
	d := draft{policy: o.extend, cases: policydraft.Cases(of, filepath.Base(o.extend), seen, false)}
	if err := d.extend(cmd.Context(), seen); err != nil {
		return err
	}
	if d.filters == 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "calloutd: %s permits all that was seen: nothing is added\n", o.extend)
		return nil
	}
	return d.save(cmd, seen)
}

// extend adds filters for what the policy that is there blocks.
func (d *draft) extend(ctx context.Context, seen []*flight.Entry) error {
	old, err := wholefile.Read(d.policy)
	if err != nil {
		return fmt.Errorf("--extend: %w", err)
	}
	needed, err := blockedBy(ctx, d.policy, seen)
	if err != nil || len(needed) == 0 {
		return err
	}
	filters := policydraft.Filters(needed)
	if d.src, err = policydraft.Extend(old, filters); err != nil {
		return fmt.Errorf("--extend: %s: %w", d.policy, err)
	}
	d.filters = len(filters)
	return nil
}

// save writes both, and tells what is blocked all the same.
func (d *draft) save(cmd *cobra.Command, seen []*flight.Entry) error {
	if err := wholefile.Write(d.policy, d.src); err != nil {
		return err
	}
	cases := freeName(strings.TrimSuffix(d.policy, filepath.Ext(d.policy)), "_test.yaml")
	if err := wholefile.Write(cases, d.cases); err != nil {
		return err
	}
	still, err := blockedBy(cmd.Context(), d.policy, seen)
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "calloutd: %s written to %s, what was seen to %s\n", counted(d.filters, "filter"), d.policy, cases)
	for _, e := range still {
		in := new(policytest.World).Incoming(e)
		fmt.Fprintf(cmd.ErrOrStderr(), "calloutd: %s is blocked all the same: calloutd why says by what\n", policytrace.Clean(policytest.Describe(&in)))
	}
	return nil
}

// freeName is that of a file that is not there, so that no cases of before are lost.
func freeName(base, end string) string {
	name := base + end
	for n := 1; ; n++ {
		if _, err := os.Stat(name); err != nil {
			return name
		}
		name = base + "_learned" + strings.TrimPrefix(fmt.Sprint(n), "1") + end
	}
}

// alone waits until no other calloutd changes a file, and says so if there is one.
func alone(cmd *cobra.Command, file string) (unlock func(), err error) {
	return filelock.Lock(cmd.Context(), file, func() {
		fmt.Fprintf(cmd.ErrOrStderr(), "calloutd: another calloutd is changing %s: waiting for it\n", file)
	})
}

// blockedBy are those that a policy blocks.
func blockedBy(ctx context.Context, policy string, seen []*flight.Entry) (out []*flight.Entry, err error) {
	var p *policyrun.Policy
	err = untilEnded(ctx, func(ctx context.Context) (err error) {
		p, err = describe(ctx, policy, newTracer(io.Discard, false, false))
		return err
	})
	if err != nil {
		return nil, err
	}
	defer p.Close()
	asked := policytrace.World(p).Quiet()
	for _, e := range seen {
		o, err := asked.Decide(ctx, asked.Record(), asked.Incoming(e))
		if err != nil {
			return nil, err
		}
		if o.Action == policytest.Block {
			out = append(out, e)
		}
	}
	return out, nil
}
