package filewatch_test

import (
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/calloutd/calloutd/cmd/calloutd/internal/filewatch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start watches a file of a new folder. That it does is the first change.
func start(t *testing.T) (w *filewatch.Watcher, file string) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	file = filepath.Join(dir, "conf", "policy.yaml")
	require.NoError(t, os.Mkdir(filepath.Dir(file), 0o755))
	write(t, file, "one")
	w, err = filewatch.New(filewatch.Options{Quiet: time.Millisecond, Retry: time.Millisecond, Logf: t.Logf})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() { cancel(); require.NoError(t, <-ended) })
	w.Watch(ctx, []string{file})
	changed(t, w)
	return w, file
}

func write(t *testing.T, file, text string) {
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
}

func changed(t *testing.T, w *filewatch.Watcher) {
	t.Helper()
	select {
	case <-w.Changed():
	case <-time.After(time.Minute):
		t.Fatal("nothing was heard")
	}
}

func TestEveryWayToWriteAFileIsHeard(t *testing.T) {
	for name, how := range map[string]func(t *testing.T, file string){
		"in place": func(t *testing.T, file string) { write(t, file, "two") },
		"by a rename, as editors do": func(t *testing.T, file string) {
			write(t, file+"~", "two")
			require.NoError(t, os.Rename(file+"~", file))
		},
		"removed": func(t *testing.T, file string) { require.NoError(t, os.Remove(file)) },
		"the folder goes and comes again": func(t *testing.T, file string) {
			require.NoError(t, os.RemoveAll(filepath.Dir(file)))
			require.NoError(t, os.Mkdir(filepath.Dir(file), 0o755))
			write(t, file, "two")
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, file := start(t)
			how(t, file)
			changed(t, w)
			if _, err := os.Stat(file); err == nil { // It is watched still.
				for name := range 3 {
					write(t, file, "again"+string(rune(name)))
					changed(t, w)
				}
			}
		})
	}
}

// A mounted configuration: the file is a link into a folder that is a link, and
// that is what changes.
func TestLinksThatChange(t *testing.T) {
	w, file := start(t)
	dir := filepath.Dir(file)
	for _, version := range []string{"v1", "v2"} {
		require.NoError(t, os.Mkdir(filepath.Join(dir, version), 0o755))
		write(t, filepath.Join(dir, version, "policy.yaml"), version)
	}
	require.NoError(t, os.Symlink("v1", filepath.Join(dir, "data")))
	require.NoError(t, os.Remove(file))
	require.NoError(t, os.Symlink("data/policy.yaml", file))
	w.Watch(t.Context(), []string{file})
	changed(t, w)
	require.NoError(t, os.Symlink("v2", filepath.Join(dir, "next")))
	require.NoError(t, os.Rename(filepath.Join(dir, "next"), filepath.Join(dir, "data")))
	changed(t, w)
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, "v2", string(b))
}

func TestAnEndedWatchHoldsNobodyUp(t *testing.T) {
	w, err := filewatch.New(filewatch.Options{})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, w.Run(ctx))
	w.Watch(t.Context(), []string{"policy.yaml"})
}

func TestWhatIsIgnoredIsNoChange(t *testing.T) {
	dir := t.TempDir()
	var heard, ignored atomic.Int64
	w, err := filewatch.New(filewatch.Options{Quiet: time.Millisecond, Logf: t.Logf, Ignore: func(file string) bool {
		if filepath.Base(file) == "report.xml" {
			ignored.Add(1)
			return true
		}
		heard.Add(1)
		return false
	}})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() { cancel(); require.NoError(t, <-ended) })
	w.Watch(ctx, []string{filepath.Join(dir, "policy.yaml")})
	changed(t, w)
	write(t, filepath.Join(dir, "report.xml"), "one")
	require.Eventually(t, func() bool { return ignored.Load() > 0 }, time.Minute, time.Millisecond)
	require.Zero(t, heard.Load())
	write(t, filepath.Join(dir, "policy.yaml"), "two")
	changed(t, w)
	require.Positive(t, heard.Load(), "it was that, and not the report")
}
