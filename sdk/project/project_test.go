package project_test

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/sdk/project"
)

func TestNamesOfPolicies(t *testing.T) {
	for name, ok := range map[string]bool{
		"a": true, "no-telnet": true, "p2": true, strings.Repeat("a", 40): true,
		"": false, "A": false, "2p": false, "-p": false, "a_b": false, "a b": false, "../p": false, ".": false, "a/b": false, "é": false, strings.Repeat("a", 41): false,
	} {
		dir := t.TempDir()
		_, err := project.New(dir, "wat", name, project.Blocks)
		if ok {
			require.NoError(t, err)
			continue
		}
		require.ErrorContains(t, err, "is no name for a policy")
		left, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Empty(t, left, "nothing was made of %q", name)
	}
}

func TestUnknownLanguageIsAnErrorThatNamesTheOthers(t *testing.T) {
	_, err := project.New(t.TempDir(), "cobol", "p", project.Blocks)
	require.EqualError(t, err, `there is no language "cobol": expected one of `+strings.Join(project.Names(), ", "))
}

func TestWhatExistsIsNeverOverwritten(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "empty"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), []byte("mine"), 0o644))
	for _, name := range []string{"empty", "file"} {
		_, err := project.New(dir, "c", name, project.Blocks)
		require.ErrorContains(t, err, "exists already and stays as it is")
	}
	left, err := os.ReadDir(filepath.Join(dir, "empty"))
	require.NoError(t, err)
	require.Empty(t, left)
}

// A project has its SDK byte for byte, its files are about it, and its language is known by them.
func TestProjectsAreWhole(t *testing.T) {
	for _, name := range project.Names() {
		for _, start := range []project.Start{project.Blocks, project.Redirects} {
			t.Run(name+" "+string(start), func(t *testing.T) { whole(t, name, start) })
		}
	}
}

func whole(t *testing.T, name string, start project.Start) {
	dir := t.TempDir()
	l, err := project.New(dir, name, "hello", start)
	require.NoError(t, err)
	root := filepath.Join(dir, "hello")
	for _, file := range []string{l.Main, "README.md", "policy.yaml", "policy_test.yaml", "Makefile", ".gitignore"} {
		require.FileExists(t, filepath.Join(root, file))
	}
	of, err := project.Of(root)
	require.NoError(t, err)
	require.Equal(t, name, of.Name)
	for from, to := range l.Vendor {
		compare(t, filepath.Join("..", from), filepath.Join(root, l.Kit, to))
	}
	make, err := os.ReadFile(filepath.Join(root, "Makefile"))
	require.NoError(t, err)
	for _, command := range l.Makefile() {
		require.Contains(t, string(make), "\n\t"+command+"\n")
	}
}

// The words of a project's README are those of the SDK's.
func TestWordsAreTheSDKs(t *testing.T) {
	for _, l := range project.Languages {
		folder := l.Name
		if folder == "cpp" {
			folder = "c"
		}
		src, err := os.ReadFile(filepath.Join("..", folder, "README.md"))
		require.NoError(t, err)
		for word, here := range map[string]string{"Permit": l.Words.Permit, "Block": l.Words.Block, "Continue": l.Words.Continue, "Redirect": l.Words.Redirect} {
			require.Regexp(t, `(?m)^\| `+word+` \|.*`+regexp.QuoteMeta(here), string(src), l.Name)
		}
		// A callout is the module, a policy is what asks it: filters and callouts.
		require.NotRegexp(t, `(?i)\b(a|an|the|each|this) policy\b([^ ]| [^f]| f[^i])`, string(src), l.Name)
	}
}

// What editors are told of JavaScript is what the engine has, and all of it.
func TestDeclarationsOfJavaScriptAreTheEngines(t *testing.T) {
	read := func(file string) string {
		src, err := os.ReadFile(filepath.Join("..", "js", file))
		require.NoError(t, err)
		return string(src)
	}
	all := func(src, pattern string) (names []string) {
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(src, -1) {
			names = append(names, m[1])
		}
		require.NotEmpty(t, names, pattern)
		return names
	}
	engine, prelude, declared := read("call.h")+read("host.h")+read("engine.c"), read("prelude.cc"), read("callout.d.ts")
	block := func(begin string) string {
		_, rest, ok := strings.Cut(declared, begin)
		require.True(t, ok, begin)
		body, _, _ := strings.Cut(rest, "\n}")
		return body
	}
	const member = `(?m)^  (?:readonly )?(\w+)[(:]`
	require.ElementsMatch(t, all(engine, `FIELD\("(\w+)"`), all(block("interface Call {"), member))
	require.ElementsMatch(t, all(prelude, `(?m)^  (with\w+|hard|keepContext|noRecord|cacheable)\(`), all(block("interface Verdict {"), member))
	require.ElementsMatch(t, all(engine, `SetPropertyStr\(js, e, "(\w+)"`), all(block("interface CalloutEvent {"), member))
	require.ElementsMatch(t, all(engine, `JS_CFUNC\w*DEF\("(\w+)"`), all(block("declare const host: {"), member))
	require.ElementsMatch(t, all(prelude, `globalThis\.(\w+) = `), all(declared, `declare function (\w+)`))
}

// compare makes sure that every source at from is at to.
func compare(t *testing.T, from, to string) {
	files := 0
	require.NoError(t, filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		require.NoError(t, err)
		if d.IsDir() && filepath.Base(p) == "example" {
			return filepath.SkipDir
		}
		if d.IsDir() || strings.HasSuffix(p, "_test.go") || filepath.Base(p) == "README.md" || p == filepath.Join(from, "gen.go") || filepath.Ext(p) == ".yaml" || filepath.Ext(p) == ".tmpl" {
			return nil
		}
		want, err := os.ReadFile(p)
		require.NoError(t, err)
		got, err := os.ReadFile(filepath.Join(to, strings.TrimPrefix(p, from)))
		require.NoError(t, err)
		require.Equal(t, string(want), string(got), p)
		files++
		return nil
	}))
	require.Positive(t, files)
}

func TestFolderWithoutAPolicyIsNoProject(t *testing.T) {
	dir := t.TempDir()
	_, err := project.Build(t.Context(), dir, new(bytes.Buffer))
	require.ErrorContains(t, err, "it has none of policy.go, policy.rs")
	for _, main := range []string{"policy.c", "policy.zig"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, main), nil, 0o644))
	}
	_, err = project.Build(t.Context(), dir, new(bytes.Buffer))
	require.ErrorContains(t, err, "has both policy.c and policy.zig")
}

// What is missing is named with what installs it, all of it at once.
func TestMissingToolsAreNamedWithWhatInstallsThem(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for name, want := range map[string][]string{
		"c":              {"apt-get install clang", "apt-get install lld"},
		"cpp":            {"apt-get install clang"},
		"go":             {"Go 1.26"},
		"assemblyscript": {"apt-get install nodejs npm", "npm install in the folder of the policy"},
		"zig":            {"Zig 0.11"},
		"wat":            {"apt-get install wabt"},
	} {
		dir := t.TempDir()
		_, err := project.New(dir, name, "hello", project.Blocks)
		require.NoError(t, err)
		_, err = project.Build(t.Context(), filepath.Join(dir, "hello"), new(bytes.Buffer))
		var missing *project.MissingError
		require.ErrorAs(t, err, &missing, name)
		for _, w := range want {
			require.ErrorContains(t, err, w)
		}
		require.NoFileExists(t, filepath.Join(dir, "hello", project.Wasm))
	}
}

// A tool that is there and cannot do it is missing too, and says why.
func TestToolsThatCannotDoItAreMissing(t *testing.T) {
	for _, c := range []struct{ language, tool, script, want string }{
		{"c", "clang", "echo 'x86-64'", "it has no target wasm32"},
		{"zig", "zig", "echo 0.14.1", "it is 0.14.1, and the language changed since 0.11"},
		{"zig", "zig", "[ $1 = env ] && { echo 'error: AppDataDirUnavailable' >&2; exit 1; }; echo 0.11.0",
			"it has no folder for its cache: set HOME or ZIG_GLOBAL_CACHE_DIR (error: AppDataDirUnavailable)"},
		{"go", "go", "echo go1.21.3", "it is go1.21.3"},
		{"rust", "rustc", "echo /nowhere/lib/rustlib/wasm32-unknown-unknown/lib", "it has no target wasm32-unknown-unknown: apt-get install libstd-rust-dev-wasm32"},
		{"rust", "rustc", "echo /home/me/.rustup/toolchains/stable-x86_64-unknown-linux-gnu/lib/rustlib/wasm32-unknown-unknown/lib",
			"it has no target wasm32-unknown-unknown: rustup target add --toolchain stable-x86_64-unknown-linux-gnu wasm32-unknown-unknown"},
		{"rust", "rustc", "exit 1", "exit status 1"},
		{"rust", "rustc", "echo 'error: no default toolchain' >&2; echo more >&2; exit 1", "rustc: error: no default toolchain)"},
	} {
		bin, dir := t.TempDir(), t.TempDir()
		t.Setenv("PATH", bin)
		at := filepath.Join(bin, c.tool)
		require.NoError(t, os.WriteFile(at, []byte("#!/bin/sh\n"+c.script+"\n"), 0o755))
		l := *project.ByName(c.language) // a copy
		l.Tools = []project.Tool{l.Tools[0]}
		l.Tools[0].At = []string{c.tool}
		_, err := l.Find(t.Context(), dir)
		require.ErrorContains(t, err, c.want)
	}
}

// Of compilers that all cannot do it, each is told what it lacks: people repair the one that
// they chose.
func TestEachToolThatCannotDoItSaysWhy(t *testing.T) {
	one, two := t.TempDir(), t.TempDir()
	l := *project.ByName("rust") // a copy
	l.Tools = []project.Tool{l.Tools[0]}
	l.Tools[0].At = nil
	for _, bin := range []string{one, two} {
		at := filepath.Join(bin, "rustc")
		require.NoError(t, os.WriteFile(at, []byte("#!/bin/sh\necho /nowhere\n"), 0o755))
		l.Tools[0].At = append(l.Tools[0].At, at)
	}
	_, err := l.Find(t.Context(), t.TempDir())
	require.ErrorContains(t, err, one)
	require.ErrorContains(t, err, two)
}

// A build that is stopped ends its compiler, and leaves nothing.
func TestStoppedBuildLeavesNothing(t *testing.T) {
	bin, tmp, dir := t.TempDir(), t.TempDir(), t.TempDir()
	_, err := project.New(dir, "wat", "hello", project.Blocks)
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	require.NoError(t, os.WriteFile(filepath.Join(bin, "wat2wasm"), []byte("#!/bin/sh\necho begun\nexec sleep 60\n"), 0o755))
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	t.Setenv("TMPDIR", tmp)
	_, err = project.Build(ctx, filepath.Join(dir, "hello"), writes(stop))
	require.Equal(t, context.Canceled, err)
	left, err := os.ReadDir(tmp)
	require.NoError(t, err)
	require.Empty(t, left)
}

// writes calls a function when something is written.
type writes func()

func (w writes) Write(p []byte) (int, error) {
	w()
	return len(p), nil
}
