package meter_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/calloutd/calloutd/host/guest/meter"
)

// The core test suite of the specification is a part of wazero's Go module.
func suite(t *testing.T) (dir string) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/tetratelabs/wazero").Output()
	require.NoError(t, err)
	return filepath.Join(strings.TrimSpace(string(out)), "internal", "integration_test", "spectest")
}

// TestSpec runs every module of the suite twice, as it is and metered: both
// compile or neither, both start or neither, and every call gives the same.
func TestSpec(t *testing.T) {
	dir := suite(t)
	files, err := filepath.Glob(filepath.Join(dir, "v2", "testdata", "*.json")) // v1 is a part of it
	require.NoError(t, err)
	require.NotEmpty(t, files)
	spectest, err := os.ReadFile(filepath.Join(dir, "testdata", "spectest.wasm"))
	require.NoError(t, err)
	var modules, calls atomic.Int64
	t.Run("suite", func(t *testing.T) {
		for _, f := range files {
			t.Run(strings.TrimSuffix(filepath.Base(f), ".json"), func(t *testing.T) {
				t.Parallel()
				s := newScript(t, f, spectest)
				for k, c := range s.Commands {
					if next := k + 1; next < len(s.Commands) && s.Commands[next].Type == "register" {
						c.As = s.Commands[next].As
					}
					s.run(c)
				}
				modules.Add(s.modules)
				calls.Add(s.calls)
			})
		}
	})
	t.Logf("%d modules, %d calls", modules.Load(), calls.Load())
	require.Greater(t, modules.Load(), int64(1000))
	require.Greater(t, calls.Load(), int64(30000))
}

type command struct {
	Type, Name, Filename, As, Field string
	Line                            int
	ModuleType                      string `json:"module_type"`
	Action                          struct {
		Type, Field, Module string
		Args                []struct {
			Type  string
			Value json.RawMessage
			Lane  string `json:"lane_type"`
		}
	}
}

// A script is a file of the suite with a world of plain modules and one of
// metered ones.
type script struct {
	Commands       []command
	t              *testing.T
	dir            string
	plain, metered world
	modules, calls int64
}

// A world is a runtime with what a script instantiated in it.
type world struct {
	rt    wazero.Runtime
	last  api.Module
	names map[string]api.Module
}

func newScript(t *testing.T, file string, spectest []byte) *script {
	s := &script{t: t, dir: filepath.Dir(file), plain: newWorld(t, spectest), metered: newWorld(t, spectest)}
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, s))
	return s
}

func newWorld(t *testing.T, spectest []byte) world {
	w := world{rt: wazero.NewRuntime(t.Context()), names: map[string]api.Module{}}
	t.Cleanup(func() { w.rt.Close(context.Background()) })
	_, err := w.rt.Instantiate(t.Context(), spectest)
	require.NoError(t, err)
	return w
}

func (s *script) run(c command) {
	switch c.Type {
	case "module", "assert_uninstantiable", "assert_unlinkable", "assert_invalid", "assert_malformed":
		if !strings.HasSuffix(c.Filename, ".wasm") {
			return
		}
		s.instantiate(c)
	case "action", "assert_return", "assert_trap", "assert_exhaustion":
		s.call(c)
	}
}

func (s *script) instantiate(c command) {
	wasm, err := os.ReadFile(filepath.Join(s.dir, c.Filename))
	require.NoError(s.t, err)
	// A module without its custom sections, which may be malformed, is the same.
	core, err := meter.Strip(wasm)
	var plain, metered wazero.CompiledModule
	if err == nil {
		plain, err = s.plain.rt.CompileModule(s.t.Context(), core)
	}
	guarded, err2 := meter.Rewrite(wasm)
	if err2 == nil {
		metered, err2 = s.metered.rt.CompileModule(s.t.Context(), guarded)
	}
	require.Equal(s.t, err == nil, err2 == nil, "%s: plain: %v; metered: %v", c.Filename, err, err2)
	if err != nil {
		return
	}
	s.modules++
	a, err := s.plain.rt.InstantiateModule(s.t.Context(), plain, wazero.NewModuleConfig().WithName(c.As))
	b, err2 := s.metered.rt.InstantiateModule(s.t.Context(), metered, wazero.NewModuleConfig().WithName(c.As))
	require.Equal(s.t, cause(err), cause(err2), c.Filename)
	if c.Type == "module" {
		s.plain.last, s.metered.last = a, b
		s.plain.names[c.Name], s.metered.names[c.Name] = a, b
	}
}

// cause is why something failed, without where.
func cause(err error) string {
	if err == nil {
		return ""
	}
	line, _, _ := strings.Cut(err.Error(), "\n")
	line, _, _ = strings.Cut(line, "mismatch: ") // The metered table has a maximum.
	return line
}

func (s *script) call(c command) {
	a, b := s.plain.last, s.metered.last
	if c.Action.Module != "" {
		a, b = s.plain.names[c.Action.Module], s.metered.names[c.Action.Module]
	}
	s.calls++
	if c.Action.Type == "get" {
		require.Equal(s.t, a.ExportedGlobal(c.Action.Field).Get(), b.ExportedGlobal(c.Action.Field).Get(), "line %d", c.Line)
		return
	}
	args := s.args(c)
	if deep := b.ExportedGlobal(meter.DepthGlobal); deep != nil { // The suite nests calls as it likes.
		deep.(api.MutableGlobal).Set(1 << 30)
	}
	got, err2 := b.ExportedFunction(c.Action.Field).Call(s.t.Context(), args...)
	if c.Type == "assert_exhaustion" { // The plain one is known to.
		require.Error(s.t, err2, "line %d", c.Line)
		return
	}
	want, err := a.ExportedFunction(c.Action.Field).Call(s.t.Context(), args...)
	require.Equal(s.t, cause(err), cause(err2), "line %d", c.Line)
	require.Equal(s.t, want, got, "line %d", c.Line)
	for name := range a.ExportedMemoryDefinitions() {
		require.Equal(s.t, a.ExportedMemory(name).Size(), b.ExportedMemory(name).Size(), "line %d", c.Line)
	}
}

// args are numbers in decimal, as many as a vector has lanes, or null.
func (s *script) args(c command) (out []uint64) {
	for _, a := range c.Action.Args {
		var lanes []string
		if json.Unmarshal(a.Value, &lanes) != nil {
			lanes = []string{strings.Trim(string(a.Value), `"`)}
		}
		if a.Type != "v128" {
			out = append(out, s.number(lanes[0]))
			continue
		}
		bits, err := strconv.Atoi(a.Lane[1:])
		require.NoError(s.t, err)
		var v [2]uint64
		for k, lane := range lanes {
			v[k*bits/64] |= s.number(lane) << (k * bits % 64)
		}
		out = append(out, v[:]...)
	}
	return out
}

func (s *script) number(text string) uint64 {
	if text == "null" || text == "" {
		return 0
	}
	n, err := strconv.ParseUint(text, 10, 64)
	require.NoError(s.t, err, fmt.Sprintf("%q", text))
	return n
}
