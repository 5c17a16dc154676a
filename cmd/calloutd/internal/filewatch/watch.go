// Package filewatch says when files change, however they are written: in place, by a
// rename, or by a link that points elsewhere.
package filewatch

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Options configure a Watcher.
type Options struct {
	// Quiet is how long nothing may happen before a change counts: an editor
	// writes more than once. Optional: a tenth of a second.
	Quiet time.Duration
	// Retry is how often a folder that is gone is looked for. Optional: a second.
	Retry time.Duration
	// Ignore is true for files whose changes do not count. Optional: there are none.
	Ignore func(file string) bool
	Logf   func(format string, args ...any) // Optional.
}

// A Watcher watches the folders of files. Editors and deployments replace files,
// and a watch of the file itself would go with the old one.
type Watcher struct {
	opts    Options
	files   chan []string
	changed chan struct{}
	ended   chan struct{} // with Run
	w       *fsnotify.Watcher
	want    map[string]bool // folders, and whether they are watched
}

// New returns a Watcher of no file.
func New(o Options) (*Watcher, error) {
	if o.Quiet == 0 {
		o.Quiet = 100 * time.Millisecond
	}
	if o.Retry == 0 {
		o.Retry = time.Second
	}
	if o.Ignore == nil {
		o.Ignore = func(string) bool { return false }
	}
	if o.Logf == nil {
		o.Logf = func(string, ...any) {}
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	return &Watcher{opts: o, files: make(chan []string), changed: make(chan struct{}, 1), ended: make(chan struct{}), w: w, want: map[string]bool{}}, nil
}

// Changed receives when something happened in a folder that has one of the files.
// What it was is for the receiver to find out.
func (w *Watcher) Changed() <-chan struct{} { return w.changed }

// Watch takes these files in place of those before. That a folder is watched now
// counts as a change: nobody knows what happened in it until then. It waits for Run, and
// does nothing once that has ended.
func (w *Watcher) Watch(ctx context.Context, files []string) {
	select {
	case w.files <- files:
	case <-w.ended:
	case <-ctx.Done():
	}
}

// Run watches until ctx ends. It runs once.
func (w *Watcher) Run(ctx context.Context) error {
	defer close(w.ended)
	defer w.w.Close()
	quiet := time.NewTimer(0)
	quiet.Stop()
	retry := time.NewTicker(w.opts.Retry)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case files := <-w.files:
			if w.follow(files) {
				quiet.Reset(w.opts.Quiet)
			}
		case e, ok := <-w.w.Events:
			if !ok {
				return errors.New("watch: the system ended it")
			}
			w.lost(e)
			if !w.opts.Ignore(e.Name) {
				quiet.Reset(w.opts.Quiet)
			}
		case err := <-w.w.Errors: // Events were lost, or a folder cannot be read.
			w.opts.Logf("watch: %v", err)
			quiet.Reset(w.opts.Quiet)
		case <-retry.C:
			if w.add() {
				quiet.Reset(w.opts.Quiet)
			}
		case <-quiet.C:
			select {
			case w.changed <- struct{}{}:
			default: // One is not received yet.
			}
		}
	}
}

// lost notes that a folder is gone.
func (w *Watcher) lost(e fsnotify.Event) {
	if _, ok := w.want[e.Name]; ok && e.Has(fsnotify.Remove|fsnotify.Rename) {
		_ = w.w.Remove(e.Name) // It may be removed already.
		w.want[e.Name] = false
	}
}

// follow watches the folders of the files, and those that their links lead to, and
// reports whether one was not watched before.
func (w *Watcher) follow(files []string) bool {
	next := map[string]bool{}
	for _, f := range files {
		for _, dir := range folders(f) {
			next[dir] = w.want[dir]
		}
	}
	for dir, watched := range w.want {
		if _, ok := next[dir]; !ok && watched {
			_ = w.w.Remove(dir) // It may be gone.
		}
	}
	w.want = maps.Clone(next)
	return w.add()
}

// add watches what is not watched yet, and reports whether that was something.
func (w *Watcher) add() (some bool) {
	for dir, watched := range w.want {
		if watched {
			continue
		}
		err := w.w.Add(dir)
		switch {
		case err == nil:
			w.want[dir], some = true, true
		case !errors.Is(err, fs.ErrNotExist):
			w.opts.Logf("watch: %s: %v", dir, err)
		}
	}
	return some
}

// folders are the folder of a file, of each link on the way to it, and of what the
// last one points to.
func folders(file string) []string {
	var out []string
	for range 40 { // as many links as Linux follows
		out = append(out, filepath.Dir(file))
		to, err := os.Readlink(file)
		if err != nil {
			break
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(file), to)
		}
		file = to
	}
	if real, err := filepath.EvalSymlinks(file); err == nil {
		out = append(out, filepath.Dir(real))
	}
	return out
}
