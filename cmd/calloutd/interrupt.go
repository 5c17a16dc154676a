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

// tidily has a command's context end when somebody ends the command, which ends of the same
// signal when it is done, or after a grace. Another signal ends it at once.
func tidily(run func(*cobra.Command, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		ctx, cancel := context.WithCancel(cmd.Context())
		defer cancel()
		cmd.SetContext(ctx)
		signals := make(chan os.Signal, 1)
		for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
			if !signal.Ignored(s) { // as the first is by what a script has in the background
				signal.Notify(signals, s)
			}
		}
		defer signal.Stop(signals)
		done := make(chan error, 1)
		go func() { done <- run(cmd, args) }()
		select {
		case err := <-done:
			return err
		case s := <-signals:
			signal.Stop(signals)
			cancel()
			select {
			case <-done:
			case <-time.After(grace):
			}
			return endOf(s)
		}
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
