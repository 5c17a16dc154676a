package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/enforce/seccomp"
)

func newRun() *cobra.Command {
	var policy, events string
	var asJSON, trace bool
	cmd := &cobra.Command{
		Use:   "run --policy FILE -- COMMAND [ARGS...]",
		Short: "Run a command with the policy enforced on every connection it and its children make",
		Long: `Run starts the command and takes every TCP connect() of its whole process tree through
the policy. It needs no privilege. The command keeps its terminal, signals and exit code.
A blocked connect fails with EACCES and prints one line on standard error.`,
		Example: "  calloutd run --policy examples/quickstart/policy.yaml -- curl -s http://198.51.100.7/",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t := &tracer{out: cmd.ErrOrStderr(), json: asJSON, quiet: !trace}
			if events != "" {
				f, err := os.Create(events)
				if err != nil {
					return err
				}
				defer f.Close()
				t.out = f
			}
			w, err := open(cmd.Context(), policy, worldOptions{onDecision: t.decision, onRedirect: t.redirect, logf: t.logf})
			if err != nil {
				return err
			}
			defer w.Close()
			child := exec.Command(args[0], args[1:]...)
			child.Stdin, child.Stdout, child.Stderr = os.Stdin, os.Stdout, os.Stderr
			state, err := seccomp.Run(cmd.Context(), seccomp.Options{ALE: w.ale, Logf: t.logf, OnBlocked: func(d seccomp.Denial) {
				var b *ale.BlockedError
				if errors.As(d.Err, &b) {
					t.blocked(b)
					return
				}
				t.logf("%s[%d] to %s blocked: %v", d.AppID, d.PID, d.Remote, d.Err)
			}}, child)
			if err != nil {
				return fmt.Errorf("run %s: %w", args[0], err)
			}
			if code := shellCode(state); code != 0 {
				return exitCode(code)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.StringVar(&policy, "policy", "", "policy file")
	f.BoolVar(&trace, "trace", false, "print every layer, filter and callout that was asked")
	f.BoolVar(&asJSON, "json", false, "print JSON, one object a line")
	f.StringVar(&events, "events", "", "write denials and trace to this file instead of standard error")
	_ = cmd.MarkFlagRequired("policy") // fails only for a flag that does not exist
	return cmd
}

// shellCode is the exit code as a shell gives it: 128 and the signal's number
// for a command that a signal ended.
func shellCode(s *os.ProcessState) int {
	if ws, ok := s.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return s.ExitCode()
}
