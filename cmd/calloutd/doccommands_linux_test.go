package main

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A told command is an indented line of a document; what it prints may stand below it.
type told struct {
	line   string
	prints []string
}

// isCommand is how a command begins: maybe with variables, then with the program.
var isCommand = regexp.MustCompile(`^(?:[A-Z_]+=\S+ )*(?:asc|calloutd|cargo|cd|clang|conntrack|curl|for|go|netsh|node|python3|rustc|wasm-ld|wat2wasm|zig) `)

// commandsOf reads a document: what is indented and in no fence is a command, until
// something that cannot be one, which is what it prints.
func commandsOf(text string) (all []told, stray []string) {
	block := false
	for line := range strings.Lines(fence.ReplaceAllString(anyFence.ReplaceAllString(text, "\n"), "\n")) {
		line, indented := strings.CutPrefix(strings.TrimRight(line, "\n"), "    ")
		line, _, _ = strings.Cut(strings.TrimSpace(line), "  #")
		line = strings.TrimSpace(line)
		switch {
		case !indented || line == "":
			block = false
		case isCommand.MatchString(line):
			all, block = append(all, told{line: line}), true
		case block:
			last := &all[len(all)-1]
			last.prints = append(last.prints, line)
		default:
			stray = append(stray, line)
		}
	}
	return all, stray
}

var (
	goTest    = regexp.MustCompile(`^(?:[A-Z_]+=\S+ )*go test `)
	goRunPkg  = regexp.MustCompile(`^go run (\./\S+)`)
	ownModule = regexp.MustCompile(`^cd (\S+) && go (?:run|test) `)
)

// findTests finds what a go test command names; CI runs all tests. What it measures
// is for its reader.
func findTests(t *testing.T, line string) {
	words := regexp.MustCompile(`'[^']*'|\S+`).FindAllString(line, -1)
	names := map[string]string{}
	var folders []string
	for i, w := range words {
		switch {
		case w == "-run" || w == "-bench" || w == "-fuzz":
			names[w] = strings.Trim(words[i+1], "'")
		case strings.HasPrefix(w, "./"):
			folders = append(folders, strings.TrimSuffix(w, "/..."))
		}
	}
	require.NotEmpty(t, folders, line)
	var have []string
	for _, folder := range folders {
		have = append(have, testsIn(t, filepath.Join("../..", folder), folder != words[len(words)-1])...)
	}
	kinds := map[string]string{"-run": "Test|Example", "-bench": "Benchmark", "-fuzz": "Fuzz"}
	for _, flag := range slices.Sorted(maps.Keys(names)) {
		if names[flag] == "^$" || names[flag] == "xxx" {
			continue
		}
		first, _, _ := strings.Cut(names[flag], "/")
		match, kind := regexp.MustCompile(first), regexp.MustCompile("^(?:"+kinds[flag]+")")
		require.True(t, slices.ContainsFunc(have, func(name string) bool { return kind.MatchString(name) && match.MatchString(name) }),
			"%s: no %s of that name", line, kinds[flag])
	}
}

var testFunc = regexp.MustCompile(`(?m)^func ((?:Test|Benchmark|Example|Fuzz)\w*)\(`)

// testsIn are the names of the tests of a folder.
func testsIn(t *testing.T, folder string, below bool) (names []string) {
	files, err := filepath.Glob(filepath.Join(folder, "*_test.go"))
	require.NoError(t, err)
	if below {
		more, err := filepath.Glob(filepath.Join(folder, "*", "*_test.go"))
		require.NoError(t, err)
		files = append(files, more...)
	}
	require.NotEmpty(t, files, "%s has no tests", folder)
	for _, file := range files {
		src, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, m := range testFunc.FindAllSubmatch(src, -1) {
			names = append(names, string(m[1]))
		}
	}
	return names
}

var inline = regexp.MustCompile("`calloutd ([a-z][^`]*)`")
