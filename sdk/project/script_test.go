package project_test

import (
	"bytes"
	"context"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/calloutd/calloutd/sdk/project"
)

func engine(t testing.TB) []byte {
	t.Helper()
	wasm, err := os.ReadFile("../js/engine.wasm")
	require.NoError(t, err)
	return wasm
}

// The script is in the memory of the instance, where the engine looks for it, and
// the module is still a module.
func TestScriptIsWhereTheEngineLooks(t *testing.T) {
	script := bytes.Repeat([]byte("// more than a page\n"), 5000)
	wasm, err := project.WithScript(engine(t), script)
	require.NoError(t, err)
	rt := wazero.NewRuntimeWithConfig(t.Context(), wazero.NewRuntimeConfigInterpreter())
	defer rt.Close(t.Context())
	c, err := rt.CompileModule(t.Context(), wasm)
	require.NoError(t, err)
	nothing := api.GoFunc(func(context.Context, []uint64) {})
	for _, f := range c.ImportedFunctions() {
		module, _, _ := f.Import()
		if rt.Module(module) != nil {
			continue
		}
		b := rt.NewHostModuleBuilder(module)
		for _, g := range c.ImportedFunctions() {
			if m, name, _ := g.Import(); m == module {
				b.NewFunctionBuilder().WithGoFunction(nothing, g.ParamTypes(), g.ResultTypes()).Export(name)
			}
		}
		_, err := b.Instantiate(t.Context())
		require.NoError(t, err)
	}
	mod, err := rt.InstantiateModule(t.Context(), c, wazero.NewModuleConfig().WithStartFunctions())
	require.NoError(t, err)
	memory, ok := mod.Memory().Read(0, mod.Memory().Size())
	require.True(t, ok)
	require.Equal(t, 1, bytes.Count(memory, script))
}

func TestScriptOfAModuleIsTheOneThatWasPutIntoIt(t *testing.T) {
	want := []byte("function classify() { return proceed() }")
	wasm, err := project.WithScript(engine(t), want)
	require.NoError(t, err)
	got, is := project.ScriptOf(wasm)
	require.True(t, is)
	require.Equal(t, want, got)
	again, err := project.WithScript(wasm, []byte("another"))
	require.NoError(t, err)
	got, is = project.ScriptOf(again)
	require.True(t, is)
	require.Equal(t, "another", string(got))
	got, is = project.ScriptOf(engine(t))
	require.True(t, is)
	require.Nil(t, got)
	for _, other := range [][]byte{nil, []byte("\x00asm\x01\x00\x00\x00"), wasm[:len(wasm)/2]} {
		got, is = project.ScriptOf(other)
		require.False(t, is)
		require.Nil(t, got)
	}
}

func TestScriptsThatDoNotFit(t *testing.T) {
	e := engine(t)
	for _, c := range []struct {
		engine, script []byte
		want           string
	}{
		{e, nil, "the script is empty"},
		{e, make([]byte, 512<<10+1), "the script is 524289 bytes, the limit is 524288"},
		{[]byte("\x00asm\x01\x00\x00\x00"), []byte("1"), "the engine has 0 places for a script, expected one"},
	} {
		_, err := project.WithScript(c.engine, c.script)
		require.ErrorContains(t, err, c.want)
	}
}
