package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/calloutd/calloutd/host/guest"
	"github.com/calloutd/calloutd/host/policyrun"
	"github.com/calloutd/calloutd/host/policytest"
	"github.com/calloutd/calloutd/sdk/project"
)

// A Go callout is built with counters: the Go compiler writes no lines into
// WebAssembly, and its runtime would drown what the callout does.

// goModule begins what the Go compiler says of itself in a module.
const goModule = "\x08language\x01\x02Go"

// A goBuild is a Go package built with counters.
type goBuild struct {
	wasm   []byte
	source *countedCode
}

// goCounted builds a Go package of these files with counters.
func goCounted(ctx context.Context, folder string, files []string) ([]byte, *countedCode, error) {
	tmp, err := project.TempDir("calloutd-cover-")
	if err != nil {
		return nil, nil, err
	}
	defer os.RemoveAll(tmp)
	s := new(countedCode)
	overlay, err := s.instrument(ctx, folder, files, tmp)
	if err != nil {
		return nil, nil, err
	}
	wasm, err := policyrun.GoBuild(ctx, folder, "-overlay", overlay)
	return wasm, s, err
}

// programFiles are the Go files of a folder with a Go command that can be a callout, none
// of another.
func programFiles(ctx context.Context, folder string) []string {
	out, err := goTool(ctx, folder, "list", "-f", `{{if eq .Name "main"}}{{join .GoFiles "\n"}}{{end}}`)
	if err != nil {
		return nil
	}
	return strings.Fields(string(out))
}

// goTool runs the go command for callouts.
func goTool(ctx context.Context, folder string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Env = folder, append(os.Environ(), project.GoEnv...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go %s in %s: %w\n%s", strings.Join(args, " "), folder, err, bytes.TrimSpace(errs.Bytes()))
	}
	return out, nil
}

// instrument writes the files of a package with counters and one that says where
// they are, and returns the overlay that puts them in the places of the others.
func (s *countedCode) instrument(ctx context.Context, folder string, files []string, tmp string) (overlay string, err error) {
	folder, err = filepath.Abs(folder)
	if err != nil {
		return "", err
	}
	replace := map[string]string{}
	where := "package main\n\nimport \"unsafe\"\n"
	for n, file := range files {
		name, out := fmt.Sprint("calloutdCover", n), filepath.Join(tmp, fmt.Sprint(n, ".go"))
		if _, err := goTool(ctx, folder, "tool", "cover", "-mode=set", "-var="+name, "-o", out, file); err != nil {
			return "", err
		}
		src, err := os.ReadFile(out)
		if err != nil {
			return "", err
		}
		replace[filepath.Join(folder, file)] = out
		parts := coverParts(nearPath(filepath.Join(folder, file)), src)
		s.parts = append(s.parts, parts)
		s.counters = append(s.counters, guest.Counter{Export: name, Len: len(parts)})
		where += fmt.Sprintf("\n//go:wasmexport %s\nfunc at%s() uint32 { return uint32(uintptr(unsafe.Pointer(&%s.Count))) }\n", name, name, name)
	}
	more := filepath.Join(tmp, "where.go")
	replace[filepath.Join(folder, "calloutd_cover_where.go")] = more
	j, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	overlay = filepath.Join(tmp, "overlay.json")
	if err := os.WriteFile(more, []byte(where), 0o600); err != nil {
		return "", err
	}
	return overlay, os.WriteFile(overlay, j, 0o600)
}

// What go tool cover writes at the end of a file: for each block its lines, then
// how many statements it has.
var (
	coverPos   = regexp.MustCompile(`(?m)^\t\t(\d+), (\d+), 0x[0-9a-f]+, // \[\d+\]$`)
	coverStmts = regexp.MustCompile(`(?m)^\t\t(\d+), // \d+$`)
)

func coverParts(file string, src []byte) (parts []policytest.CodePart) {
	number := func(b []byte) int {
		n, _ := strconv.Atoi(string(b)) // The expression lets nothing else through.
		return n
	}
	for _, m := range coverPos.FindAllSubmatch(src, -1) {
		parts = append(parts, policytest.CodePart{File: file, Line: number(m[1]), End: number(m[2])})
	}
	for i, m := range coverStmts.FindAllSubmatch(src, -1) {
		if i < len(parts) {
			parts[i].Size = number(m[1])
		}
	}
	return parts
}
