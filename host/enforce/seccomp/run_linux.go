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
// passes SIGTERM and SIGHUP on.
func Run(ctx context.Context, opts Options, cmd *exec.Cmd) (*os.ProcessState, error) {
	if opts.ALE == nil {
		panic("seccomp: Options.ALE is required")
	}
	if opts.Logf == nil {
		opts.Logf = func(string, ...any) {}
	}
	if opts.OnBlocked == nil {
		opts.OnBlocked = func(Denial) {}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	passOn, stopSignals := catchSignals()
	defer stopSignals()

	type start struct {
		fd  int
		err error
	}
	started, reaped := make(chan start, 1), make(chan struct{})
	doomed.Go(func() {
		fd, err := startTrapped(cmd, opts.Logf)
		started <- start{fd, err}
		if err == nil {
			<-reaped // The end of this thread would trigger cmd's Pdeathsig.
		}
	})
	s := <-started
	if s.err != nil {
		return nil, s.err
	}
	sup := newSupervisor(ctx, opts, s.fd)
	defer sup.stop()

	waited := make(chan error, 1)
	go func() {
		waited <- cmd.Wait()
		close(reaped)
	}()
	done := ctx.Done()
	for {
		select {
		case sig := <-passOn:
			_ = cmd.Process.Signal(sig) // It may have ended just now.
		case <-done:
			done = nil
			_ = cmd.Process.Kill()
		case err := <-waited:
			if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
				err = nil
			}
			return cmd.ProcessState, errors.Join(err, treeGone(ctx, s.fd))
		}
	}
}

// treeGone waits for the rest of the tree.
func treeGone(ctx context.Context, listener int) error {
	for ctx.Err() == nil {
		if hungUp(listener, 100) {
			return nil
		}
	}
	return ctx.Err()
}

// startTrapped changes its thread for good; cmd inherits what it changed.
func startTrapped(cmd *exec.Cmd, logf func(string, ...any)) (listener int, err error) {
	prog, err := filter()
	if err != nil {
		return -1, err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return -1, fmt.Errorf("no_new_privs: %w", err)
	}
	if err := denyConnect(); errors.Is(err, enforce.ErrNotSupported) {
		logf("%v: a hostile program can win a race against the trap", err)
	} else if err != nil {
		return -1, err
	}
	if listener, err = install(prog); err != nil {
		return -1, err
	}
	if err := cmd.Start(); err != nil {
		unix.Close(listener)
		return -1, err
	}
	return listener, nil
}

// catchSignals takes signals, by handlers and not by ignoring them, which cmd
// would inherit. What this process was started to ignore (nohup) stays so.
func catchSignals() (passOn <-chan os.Signal, stop func()) {
	drop, pass := make(chan os.Signal, 1), make(chan os.Signal, 8)
	notify := func(c chan os.Signal, sigs ...os.Signal) {
		for _, sig := range sigs {
			if !signal.Ignored(sig) {
				signal.Notify(c, sig)
			}
		}
	}
	notify(drop, unix.SIGINT, unix.SIGQUIT)
	notify(pass, unix.SIGTERM, unix.SIGHUP)
	return pass, func() { signal.Stop(drop); signal.Stop(pass) }
}

const (
	receivers    = 2   // as long as none is stuck
	maxReceivers = 256 // connects that block at once before others wait
	stuckAfter   = 5 * time.Millisecond
)
