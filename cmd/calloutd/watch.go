package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/spf13/cobra"
)

// quiet is how long nothing must change before the cases run again: editors and
// compilers write in several steps.
const quiet = 200 * time.Millisecond

// watch runs the cases again whenever something changes beside them, their policies
// or their callouts, until it is interrupted.
func (o *testOptions) watch(cmd *cobra.Command, args []string) error {
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt)
	defer stop()
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("--watch: %w", err)
	}
	defer w.Close()
	var given []string // What cannot be read yet is looked at as well.
	for _, a := range args {
		given = append(given, folderOf(a))
	}
	if _, err := follow(w, given); err != nil {
		return err
	}
	for {
		var all outcome
		err := o.once(ctx, args, &all)
		if err == nil {
			err = o.report(cmd.OutOrStdout(), &all)
		}
		if _, failed := err.(exitCode); err != nil && !failed {
			complain(cmd.ErrOrStderr(), err)
		}
		more, err := follow(w, all.folders)
		if err != nil {
			return err
		}
		if !more { // Else nobody knows what happened in them since they were read.
			fmt.Fprintf(cmd.OutOrStdout(), "watching %s; interrupt to end\n", counted(len(w.WatchList()), "folder"))
			if !o.changed(ctx, w) {
				return nil
			}
		}
		fmt.Fprintln(cmd.OutOrStdout())
	}
}

// follow watches folders too, and reports whether one was not watched before.
func follow(w *fsnotify.Watcher, folders []string) (more bool, _ error) {
	for _, f := range folders {
		if f = filepath.Clean(f); slices.Contains(w.WatchList(), f) {
			continue
		}
		if err := w.Add(f); err != nil {
			return false, fmt.Errorf("--watch: %s: %w", f, err)
		}
		more = true
	}
	return more, nil
}

func folderOf(path string) string {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return path
	}
	return filepath.Dir(path)
}

// changed waits until something changed and nothing does any more. It is false when
// the watch is over.
func (o *testOptions) changed(ctx context.Context, w *fsnotify.Watcher) bool {
	var settled <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return false
		case <-settled:
			return true
		case _, open := <-w.Errors:
			if !open {
				return false
			}
		case e, open := <-w.Events:
			if !open {
				return false
			}
			if !o.writes(e.Name) && e.Op != fsnotify.Chmod {
				settled = time.After(quiet)
			}
		}
	}
}

// writes reports whether a file is one of the reports.
func (o *testOptions) writes(file string) bool {
	for _, name := range []string{o.junit, o.html, o.lcov} {
		if name != "" && filepath.Clean(name) == filepath.Clean(file) {
			return true
		}
	}
	return false
}
