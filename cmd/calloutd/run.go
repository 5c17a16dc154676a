package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/enforce/seccomp"
	"github.com/calloutd/calloutd/host/policyfile"
)

func newRun() *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use:   "run [--policy FILE] [flags] -- COMMAND [ARGS...]",
		Short: "Run a command with the policy enforced on every connection it and its children make",
		Long: `Run starts the command and takes everything that its whole process tree connects, sends
to, binds, listens on and accepts through the policy. It needs no privilege.
Without --policy it is the policy.yaml of this folder. The command keeps its terminal,
signals and exit code: 128 and the signal's number if a signal ended it, 126 if it cannot
be executed, 127 if there is none. What is blocked fails with EACCES and prints one line
on standard error: who, where to, which filter and callout, and why.

With --events every decision is a line for machines, and with --summary the end is told:
who connected where, and what was blocked and why.

With --isolate the command lives in a network of its own, from which nothing is reached:
its sockets are made outside, and a hostile program that wins a race wins nothing.

A policy with filters that would not be asked, such as those of ALE_ENDPOINT_CLOSURE, is
refused: --partial runs it all the same.`,
		Example: `  calloutd run --policy examples/quickstart/policy.yaml -- curl -s http://198.51.100.7/
  calloutd run --summary --events decisions.jsonl -- make test`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: completeCommand,
		RunE:              func(cmd *cobra.Command, args []string) error { return o.run(cmd, args) },
	}
	policyHere(cmd, &o.policy)
	jsonFlag(cmd, &o.json)
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.BoolVar(&o.trace, "trace", false, "print every layer, filter and callout that was asked")
	f.BoolVar(&o.partial, "partial", false, "run although some filters would not be asked")
	f.BoolVar(&o.isolate, "isolate", false, "give the command an empty network and make its sockets outside")
	f.BoolVar(&o.requested, "show-requested", false, "tell the command that it reached what it asked for, where it was redirected")
	o.books.account.flags(cmd)
	o.books.tape.flags(cmd)
	o.books.records.flags(f)
	_ = cmd.MarkFlagFilename("records") // fails only for a flag that does not exist
	return cmd
}

type runOptions struct {
	policy      string
	json, trace bool
	partial     bool
	isolate     bool
	requested   bool
	books       books
}

func (o *runOptions) run(cmd *cobra.Command, args []string) error {
	t := newTracer(cmd.ErrOrStderr(), o.json, o.trace)
	r, end, err := o.books.putInForce(cmd.Context(), o.policy, t)
	if err != nil {
		return err
	}
	defer end()
	if err := unenforced(r.Policy().File); err != nil && !o.partial {
		return err
	}
	child := exec.Command(args[0], args[1:]...)
	child.Stdin, child.Stdout, child.Stderr = os.Stdin, os.Stdout, os.Stderr
	state, err := seccomp.Run(cmd.Context(), seccomp.Options{ALE: r.Enforcer(), Logf: t.logf, OnBlocked: t.onBlocked, Handoff: r.Handoff,
		Isolate: o.isolate, ShowRequested: o.requested}, child)
	if err != nil {
		return notRun(args[0], err)
	}
	if code := shellCode(state); code != 0 {
		return exitCode(code)
	}
	return nil
}

// unenforced finds the filters that a run would not ask: who wrote them relies
// on them. The halves of a filter for both families are one.
func unenforced(file *policyfile.File) error {
	var errs []error
	for i := range file.Policy.Filters {
		f := &file.Policy.Filters[i]
		why := seccomp.Unenforced(f)
		if why == "" {
			continue
		}
		err := file.At("filter", fmt.Sprint(f.ID), "layer", fmt.Errorf("filter %q: %s (--partial runs all the same)", f.Name, why))
		if !slices.Contains(errs, err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (t *tracer) onBlocked(d enforce.Denial) {
	var b *ale.BlockedError
	if errors.As(d.Err, &b) {
		t.blocked(b, d.Local)
		return
	}
	t.denied(d.AppID, d.PID, d.Remote, d.Err)
}

// notRun says why a command did not run, with the exit code that shells have
// for it.
func notRun(name string, err error) error {
	code := codeTool
	switch {
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		code = codeNotFound
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.ENOEXEC):
		code = codeNotRun
	case errors.Is(err, enforce.ErrNotSupported):
		err = fmt.Errorf("%w (calloutd doctor says what is missing)", err)
	}
	complain(os.Stderr, fmt.Errorf("run %s: %w", name, err))
	return exitCode(code)
}

// shellCode is the exit code as a shell gives it.
func shellCode(s *os.ProcessState) int {
	if ws, ok := s.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return codeSignalled + int(ws.Signal())
	}
	return s.ExitCode()
}
