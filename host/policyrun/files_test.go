package policyrun

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/policyfile"
	"github.com/calloutd/calloutd/sdk/project"
)

// Who watches a policy watches the source of its callouts, and nothing else beside it.
func TestTheInputsOfAPolicy(t *testing.T) {
	dir := t.TempDir()
	for _, file := range []string{"go/main.go", "go/sub/more.go", "go/go.sum", "go/README.md", "go/folder.go/notes.txt"} {
		file = filepath.Join(dir, filepath.FromSlash(file))
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
		write(t, file, "")
	}
	f := &policyfile.File{
		Callouts: []policyfile.Callout{{Wasm: "mine.wasm"}, {GoPackage: "go"}, {GoPackage: "gone"}, {Model: "redirector"}},
		Proxies:  []policyfile.Proxy{{}, {Credentials: policyfile.Credentials{File: "secret"}}},
	}
	var got []string
	for _, file := range inputs(filepath.Join(dir, "policy.yaml"), f) {
		rel, err := filepath.Rel(dir, file)
		require.NoError(t, err)
		got = append(got, filepath.ToSlash(rel))
	}
	require.ElementsMatch(t, []string{"mine.wasm", "gone/go.mod", "go/go.mod", "go/main.go", "go/sub/more.go", "go/go.sum", "secret"}, got)
}

// The advice to build is for what a build would make, where there is something to build.
func TestWhoseModuleIsNotThereIsToldToBuildIt(t *testing.T) {
	mine, other := t.TempDir(), t.TempDir()
	write(t, filepath.Join(mine, project.ByName("go").Main), "package main\n")
	advice := ": calloutd build " + mine + " makes it"
	load := func(dir, wasm string) error {
		_, err := Module(t.Context(), dir, policyfile.Callout{Wasm: wasm})
		return err
	}
	require.ErrorContains(t, load(mine, project.Wasm), advice)
	for _, err := range []error{load(mine, project.Wasm), load(mine, "other.wasm"), load(other, project.Wasm)} {
		require.ErrorIs(t, err, os.ErrNotExist)
	}
	require.NotContains(t, load(mine, "other.wasm").Error(), "makes it")
	require.NotContains(t, load(other, project.Wasm).Error(), "makes it")
	require.NoError(t, os.Mkdir(filepath.Join(mine, project.Wasm), 0o700))
	require.ErrorContains(t, load(mine, project.Wasm), "is a folder: expected a file")
	require.NotContains(t, load(mine, project.Wasm).Error(), "makes it")
}
