package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/calloutd/calloutd/cmd/calloutd/internal/filewatch"
)

// watch runs the cases again whenever something changes beside them, their policies
// or their callouts, until it is interrupted.
func (o *testOptions) watch(cmd *cobra.Command, args []string) error {
	var files []string // What could be read once stays watched when it cannot be read.
	for _, a := range args {
		file := inside(a)
		if _, err := os.Stat(filepath.Dir(file)); err != nil {
			return fmt.Errorf("--watch: %w", err)
		}
		files = append(files, file)
	}
	warn := func(format string, args ...any) { complain(cmd.ErrOrStderr(), fmt.Errorf(format, args...)) }
	w, err := filewatch.New(filewatch.Options{Ignore: o.writes, Logf: warn})
	if err != nil {
		return fmt.Errorf("--watch: %w", err)
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt)
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx); stop() }()
	for w.Watch(ctx, files); o.changed(ctx, w); w.Watch(ctx, files) {
		files = append(files, o.runAgain(ctx, cmd, args)...)
		slices.Sort(files)
		files = slices.Compact(files)
	}
	stop()
	return <-ended
}

// changed waits for a change, which it is too that the first run's folders, and those
// that a run found, are watched. It is false when the watch is over.
func (o *testOptions) changed(ctx context.Context, w *filewatch.Watcher) bool {
	select {
	case <-w.Changed():
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// runAgain runs the cases and says what came of it. It returns the files that they
// are made of.
func (o *testOptions) runAgain(ctx context.Context, cmd *cobra.Command, args []string) []string {
	var all outcome
	err := o.once(ctx, args, &all, newProgress(cmd.ErrOrStderr(), 0, "cases"))
	if ctx.Err() != nil { // It would blame the module that was loading.
		return all.files
	}
	if err == nil {
		err = o.report(cmd.OutOrStdout(), &all)
	}
	if _, failed := err.(exitCode); err != nil && !failed {
		complain(cmd.ErrOrStderr(), err)
	}
	fmt.Fprint(cmd.OutOrStdout(), "watching for changes; interrupt to end\n\n")
	return all.files
}

// inside is a file of the folder, if it is one, since the folders of files are watched.
func inside(path string) string {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return filepath.Join(path, "policy_test.yaml")
	}
	return path
}

// writes reports whether a file is one of the reports, however its path is written.
func (o *testOptions) writes(file string) bool {
	info, err := os.Stat(file)
	return err == nil && slices.ContainsFunc([]string{o.junit, o.html, o.lcov}, func(name string) bool {
		report, err := os.Stat(name)
		return err == nil && os.SameFile(info, report)
	})
}
