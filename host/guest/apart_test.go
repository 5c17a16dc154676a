package guest_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/guest"
	"github.com/calloutd/calloutd/host/internal/race"
)

// apart is a runtime that compiles in other processes.
func apart(t testing.TB, o guest.Options) *guest.Runtime {
	t.Helper()
	o.CompileApart = true
	rt, err := guest.NewRuntime(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, rt.Close(context.Background())) })
	return rt
}

func TestModulesAreCompiledApart(t *testing.T) {
	dir := t.TempDir()
	for _, o := range []guest.ModuleOptions{{Slots: 1}, {Slots: 1, Cover: true}} {
		m, err := apart(t, guest.Options{CacheDir: dir}).Load(t.Context(), "good", wasm(t, "good"), o)
		require.NoError(t, err)
		_, err = ask(m, call(1))
		require.NoError(t, err)
		require.Equal(t, o.Cover, slices.Contains(m.Coverage().Ran, true))
		require.NoError(t, m.Close(t.Context()))
	}
}

// What is in the cache needs no other process: one would be too late.
func TestWhatIsCachedIsNotCompiledApart(t *testing.T) {
	dir := t.TempDir()
	for _, o := range []guest.ModuleOptions{{Slots: 1}, {Slots: 1, Cover: true}} {
		for _, timeout := range []time.Duration{time.Minute, time.Nanosecond} {
			m, err := apart(t, guest.Options{CacheDir: dir, CompileTimeout: timeout}).Load(t.Context(), "good", wasm(t, "good"), o)
			require.NoError(t, err)
			require.NoError(t, m.Close(t.Context()))
		}
	}
}

// Without a folder there is one while the runtime is there.
func TestCompiledApartWithoutACache(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	t.Setenv("TMP", os.Getenv("TMPDIR"))
	rt, err := guest.NewRuntime(t.Context(), guest.Options{CompileApart: true})
	require.NoError(t, err)
	m, err := rt.Load(t.Context(), "good", wasm(t, "good"), guest.ModuleOptions{Slots: 1})
	require.NoError(t, err)
	require.NoError(t, m.Close(t.Context()))
	there, err := filepath.Glob(filepath.Join(os.Getenv("TMPDIR"), "*", "metered-*.wasm"))
	require.NoError(t, err)
	require.Len(t, there, 1)
	require.NoError(t, rt.Close(t.Context()))
	left, err := os.ReadDir(os.Getenv("TMPDIR"))
	require.NoError(t, err)
	require.Empty(t, left)
}

// Where nothing can be kept it is compiled twice.
func TestCompiledApartAndNotKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	m, err := apart(t, guest.Options{CacheDir: filepath.Join(file, "dir")}).Load(t.Context(), "good", wasm(t, "good"), guest.ModuleOptions{Slots: 1})
	require.NoError(t, err)
	require.NoError(t, m.Close(t.Context()))
}

// Another process says the same of a module, and with the same words.
func TestWhyAModuleIsUnfitApart(t *testing.T) {
	here, there := newRuntime(t), apart(t, guest.Options{CacheDir: t.TempDir()})
	for _, module := range [][]byte{nil, []byte("\x00asm\x0d\x00\x01\x00"), wasm(t, "good")[:100], wasm(t, "reserved"), wasm(t, "bigmemory"), bomb(1<<14+1, nil),
		wasm(t, "command"), wasm(t, "empty"), wasm(t, "imports"), wasm(t, "types"), wasm(t, "unasked"), wasm(t, "requires"), wasm(t, "startloop"), wasm(t, "startdeep")} {
		_, want := here.Load(t.Context(), "unfit", module, guest.ModuleOptions{Slots: 1})
		_, err := there.Load(t.Context(), "unfit", module, guest.ModuleOptions{Slots: 1})
		require.EqualError(t, err, want.Error())
		require.Equal(t, kindOf(t, want), kindOf(t, err))

		seen, want := guest.Inspect(t.Context(), module, nil, guest.Options{CacheDir: cache})
		report, err := guest.Inspect(t.Context(), module, nil, guest.Options{CompileApart: true})
		if want != nil {
			require.EqualError(t, err, want.Error())
			require.Equal(t, kindOf(t, want), kindOf(t, err))
			continue
		}
		require.NoError(t, err)
		require.Equal(t, seen.Summary, report.Summary)
		require.EqualError(t, report.Refused, seen.Refused.Error())
	}
}

// patience is how long a bomb gets: under the race detector another process is slow to start.
func patience() time.Duration {
	if race.Enabled {
		return 5 * time.Second
	}
	return time.Second
}

// The compiler would need minutes for the one function of this module, and cannot be stopped.
func TestWhatTakesTheCompilerTooLongIsEnded(t *testing.T) {
	rt, bomb := apart(t, guest.Options{}), slow(40000)
	ctx, giveUp := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() {
		_, err := rt.Load(ctx, "bomb", bomb, guest.ModuleOptions{Slots: 1})
		over <- err
	}()
	time.Sleep(patience() / 5)
	m, err := rt.Load(t.Context(), "good", wasm(t, "good"), guest.ModuleOptions{Slots: 1}) // meanwhile
	require.NoError(t, err)
	require.NoError(t, m.Close(t.Context()))
	select {
	case err := <-over:
		t.Fatalf("the other one was not compiled meanwhile: %v", err)
	default:
	}
	giveUp()
	require.ErrorIs(t, <-over, context.Canceled)

	began := time.Now()
	_, err = apart(t, guest.Options{CompileTimeout: patience()}).Load(t.Context(), "bomb", bomb, guest.ModuleOptions{Slots: 1})
	require.ErrorIs(t, err, guest.ErrCompileTime)
	t.Log(err)
	require.Less(t, time.Since(began), 10*patience())
	_, err = guest.Inspect(t.Context(), bomb, nil, guest.Options{CompileApart: true, CompileTimeout: time.Millisecond})
	require.ErrorIs(t, err, guest.ErrCompileTime)
}

func TestWhoGivesUpWaitsForNoCompiler(t *testing.T) {
	gone := errors.New("the operator left")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(patience()/3, func() { cancel(gone) })
	_, err := apart(t, guest.Options{}).Load(ctx, "bomb", slow(40000), guest.ModuleOptions{Slots: 1})
	require.ErrorIs(t, err, gone)
	require.NoError(t, kindOf(t, err))
	_, err = guest.Inspect(ctx, wasm(t, "good"), nil, guest.Options{CompileApart: true})
	require.ErrorIs(t, err, gone)
	require.NoError(t, kindOf(t, err))
}

// A main that does not begin as it must would run again as a whole.
func TestAMainThatIsNotPrepared(t *testing.T) {
	if os.Getenv(unprepared) == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), unprepared+"=1")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), "--- PASS: "+t.Name())
		return
	}
	_, err := guest.NewRuntime(t.Context(), guest.Options{CompileApart: true})
	require.EqualError(t, err, "Options.CompileApart: main does not begin with guest.CompileChild()")
}

// What no optimizer has seen is long, and is no bomb.
func TestUnoptimizedCodeIsCompiledApart(t *testing.T) {
	if race.Enabled {
		t.Skip("the compiler is ten times as slow with the race detector")
	}
	out := filepath.Join(t.TempDir(), "unoptimized.wasm")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-buildmode=c-shared", "-gcflags=all=-N -l", "-cover", "-o", out, "../../examples/first-callout")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	said, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", said)
	module, err := os.ReadFile(out)
	require.NoError(t, err)
	m, err := apart(t, guest.Options{}).Load(t.Context(), "unoptimized", module, guest.ModuleOptions{Slots: 1})
	require.NoError(t, err)
	require.NoError(t, m.Close(t.Context()))
}
