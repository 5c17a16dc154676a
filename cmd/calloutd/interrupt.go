package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// grace is how long a command that somebody ends has to take away what it made on the way.
const grace = 2 * time.Second

// endedBy is that somebody ended this command, which ends of the same signal when what it
// made is taken away.
type endedBy struct{ os.Signal }

func (e endedBy) Error() string { return "ended: " + e.String() }

// tidily has a command's context end when somebody ends the command.
func tidily(run func(*cobra.Command, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		return untilEnded(cmd.Context(), func(ctx context.Context) error {
			cmd.SetContext(ctx)
			return run(cmd, args)
		})
	}
}

// untilEnded runs f with a context that ends when somebody ends the command. The error is
// then endedBy, as soon as f is done, or after a grace. Another signal ends the command at once.
func untilEnded(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	signals := make(chan os.Signal, 1)
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		if !signal.Ignored(s) { // as the first is by what a script has in the background
			signal.Notify(signals, s)
		}
	}
	defer signal.Stop(signals)
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	select {
	case err := <-done:
		signal.Stop(signals)
		select {
		case s := <-signals: // f may know of it from elsewhere.
			return endedBy{s}
		default:
			return err
		}
	case s := <-signals:
		signal.Stop(signals)
		cancel()
		select {
		case <-done:
		case <-time.After(grace):
		}
		return endedBy{s}
	}
}

// endOf ends this process as a signal does that nobody waits for: whoever runs it in a loop
// is to stop, too.
func endOf(s os.Signal) error {
	signal.Reset(s)
	if self, err := os.FindProcess(os.Getpid()); err == nil && self.Signal(s) == nil {
		time.Sleep(grace)
	}
	return exitCode(codeSignalled + int(syscall.SIGINT)) // as on Windows
}
