package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What a module calls its parts reaches no terminal: who looks into one does not trust
// it yet.
func TestNamesOfAModuleMoveNoCursor(t *testing.T) {
	const evil = "\x1b]0;title\x07\nforged: line"
	name := func(s string) string { return string(rune(len(s))) + s }
	section := func(id byte, body string) string { return string(rune(id)) + name(body) }
	module := "\x00asm\x01\x00\x00\x00" +
		section(1, "\x01\x60\x00\x00") + // type: func
		section(2, "\x01"+name("m"+evil)+name("n"+evil)+"\x00\x00") + // import
		section(7, "\x01"+name("e"+evil)+"\x00\x00") + // export
		section(0, name("c"+evil)) +
		section(0, name("producers")+"\x01"+name("language")+"\x01"+name("l"+evil)+name("1"))
	dir := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", dir)
	wasm, policy := filepath.Join(dir, "m.wasm"), filepath.Join(dir, "policy.yaml")
	require.NoError(t, os.WriteFile(wasm, []byte(module), 0o600))
	require.NoError(t, os.WriteFile(policy, []byte("version: 1\ncallouts: [{id: c, wasm: m.wasm}]\nfilters: [{name: f, layer: ALE_AUTH_CONNECT, action: callout, callout: c}]\n"), 0o600))
	for _, args := range [][]string{{"inspect", wasm}, {"check", policy}} {
		var out bytes.Buffer
		root := newRoot()
		root.SetArgs(args)
		root.SetOut(&out)
		root.SetErr(&out)
		require.Error(t, root.ExecuteContext(t.Context()), args)
		require.Contains(t, out.String(), "]0;title", args)
		require.NotContains(t, out.String(), "\x1b", args)
		require.NotContains(t, out.String(), "\x07", args)
		for line := range strings.Lines(out.String()) {
			require.False(t, strings.HasPrefix(strings.TrimSpace(line), "forged"), "%s: %s", args, out.String())
		}
	}
}
