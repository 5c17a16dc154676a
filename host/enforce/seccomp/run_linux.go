//go:build amd64 || arm64

package seccomp

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"time"

	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/enforce/internal/doomed"
	"golang.org/x/sys/unix"
)

// Run starts cmd with its connects trapped and returns when its whole process
// tree is gone, or when ctx is done: then it kills cmd, and what is left of the
// tree can no longer connect. The state is cmd's own; that cmd failed is no
// error of Run. With a state, an error is ctx's or that of copying cmd's output.
//
// cmd stays in the terminal's foreground process group. Meanwhile this process
// ignores SIGINT and SIGQUIT, which the terminal sends to cmd as well, and
// passes SIGTERM and SIGHUP on. When cmd has ended and others of the tree go on, these
// two end Run, and, once it has said what it waits for, so do the others: what is left
// of the tree goes on and can no longer connect.
func Run(ctx context.Context, opts Options, cmd *exec.Cmd) (*os.ProcessState, error) {
	if opts.ALE == nil {
		panic("seccomp: Options.ALE is required")
	}
	if opts.Logf == nil {
		opts.Logf = func(string, ...any) {}
	}
	if opts.HandoffTime == 0 {
		opts.HandoffTime = 15 * time.Second
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if opts.Isolate {
		cmd.SysProcAttr = isolated(cmd.SysProcAttr)
	} else if !opts.without.undumpable { // Another user namespace protects as well.
		undo, err := protect()
		if err != nil {
			return nil, err
		}
		defer undo()
	}
	sup, err := newSupervisor(ctx, opts)
	if err != nil {
		return nil, err
	}
	sent, stopSignals := catchSignals()
	defer stopSignals()
	adopting, err := adopt(&opts)
	if err != nil {
		sup.stop()
		return nil, err
	}
	waited, err := sup.start(cmd)
	if err != nil {
		return nil, err
	}
	defer sup.stop()
	if adopting {
		defer reap(cmd.Process, func() bool { return sup.l.hungUp(0) })()
	}
	done := sup.ctx.Done()
	for {
		select {
		case sig := <-sent:
			if passedOn(sig) {
				_ = cmd.Process.Signal(sig) // It may have ended just now.
			}
		case <-done:
			done = nil
			_ = cmd.Process.Kill()
		case err := <-waited:
			if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
				err = nil
			}
			return cmd.ProcessState, errors.Join(err, sup.treeGone(sent))
		}
	}
}

// start starts cmd on a thread that it traps, and serves it.
func (s *supervisor) start(cmd *exec.Cmd) (waited <-chan error, err error) {
	started, reaped := make(chan error), make(chan struct{})
	doomed.Go(func() {
		err := startTrapped(cmd, &s.opts, s.serve)
		started <- err
		if err == nil {
			<-reaped // The end of this thread would trigger cmd's Pdeathsig.
		}
	})
	if err := <-started; err != nil {
		s.stop()
		return nil, err
	}
	wait := make(chan error, 1)
	go func() {
		wait <- cmd.Wait()
		close(reaped)
	}()
	return wait, nil
}

// treeGone waits for the rest of the tree, as long as no signal says otherwise.
func (s *supervisor) treeGone(sent <-chan os.Signal) error {
	const patience = time.Second
	said, began := false, time.Now()
	for s.ctx.Err() == nil {
		if s.l.hungUp(100) {
			return nil
		}
		select {
		case sig := <-sent:
			if said || passedOn(sig) { // Of the terminal's the command may have ended just now.
				s.opts.Logf("seccomp: %v: processes that the command has started go on, and their connections fail from now on", sig)
				return nil
			}
		default:
		}
		if !said && time.Since(began) > patience {
			said = true
			s.opts.Logf("seccomp: the command has ended, and processes that it has started go on: they are waited for until they end, or a signal comes")
		}
	}
	return context.Cause(s.ctx)
}

// startTrapped changes its thread for good; cmd inherits what it changed. serve
// begins to answer before cmd starts, whose start may be trapped already.
func startTrapped(cmd *exec.Cmd, opts *Options, serve func(listener)) error {
	prog, err := filter(opts)
	if err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	if !opts.without.landlock {
		if err := denyTCP(); errors.Is(err, enforce.ErrNotSupported) {
			opts.Logf("%v: a hostile program can win a race against the trap", err)
		} else if err != nil {
			return err
		}
	}
	l, err := install(prog, !opts.without.killable)
	if err != nil {
		return err
	}
	serve(l)
	if err := cmd.Start(); err != nil {
		return notIsolated(opts, err)
	}
	return nil
}

// catchSignals takes signals, by handlers and not by ignoring them, which cmd
// would inherit. What this process was started to ignore (nohup) stays so.
func catchSignals() (sent <-chan os.Signal, stop func()) {
	c := make(chan os.Signal, 8)
	for _, sig := range []os.Signal{unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGHUP} {
		if !signal.Ignored(sig) {
			signal.Notify(c, sig)
		}
	}
	return c, func() { signal.Stop(c) }
}

// passedOn reports whether a signal is for the command, which does not have it already.
func passedOn(sig os.Signal) bool { return sig == unix.SIGTERM || sig == unix.SIGHUP }
