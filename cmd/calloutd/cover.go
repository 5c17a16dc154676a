package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/guest"
	"github.com/calloutd/calloutd/host/policyfile"
	"github.com/calloutd/calloutd/host/policyrun"
	"github.com/calloutd/calloutd/host/policytest"
)

// Codes are the callouts of a policy whose code is measured.
type codes struct {
	search bool   // by blocks, one instance of each, whatever fails
	builds string // folder of modules that take the place of those of the same name; empty: none
	all    []*measured
	// opening hears of each file that callouts are made of. Optional.
	opening func(file string)
	// built has Go packages that were built to be measured, by folder. Optional.
	built map[string]goBuild
}

// A goBuild is a Go package built with counters.
type goBuild struct {
	wasm   []byte
	source *goSource
}

// A measured is a callout whose code is measured.
type measured struct {
	callout fwpm.CalloutID
	module  string // the file or folder it is made of
	guest   *guest.Module
	source  *goSource // nil: measured by its blocks
	script  bool      // an interpreter's blocks say nothing of the script
}

// describe opens a policy whose callouts' code is measured.
func (cs *codes) describe(ctx context.Context, path string, file *policyfile.File) (*policyrun.Policy, error) {
	d := policyrun.Description{Options: newTracer(io.Discard, false, false).options(), File: file}
	d.Module, d.OnInput = cs.load, cs.opening
	p, err := policyrun.Describe(ctx, path, d)
	if err != nil {
		return nil, err
	}
	for _, m := range cs.all {
		m.guest = p.Modules[m.callout]
	}
	return p, nil
}

// load gives the form of a callout that counts.
func (cs *codes) load(ctx context.Context, dir string, c policyfile.Callout, o *guest.ModuleOptions) ([]byte, error) {
	wasm, err := cs.module(ctx, dir, c)
	if err != nil {
		return nil, err
	}
	m := &measured{callout: c.ID, module: policyfile.Under(dir, c.Wasm+c.GoPackage)}
	m.script = bytes.Contains(wasm, []byte(scriptEngine))
	cs.all = append(cs.all, m)
	wasm, m.source, err = cs.measure(ctx, dir, c, wasm, o)
	return wasm, err
}

// module is a callout's module, or the build of it that can be measured.
func (cs *codes) module(ctx context.Context, dir string, c policyfile.Callout) ([]byte, error) {
	if cs.builds != "" && c.Wasm != "" {
		build := policyfile.Callout{Wasm: filepath.Join(cs.builds, filepath.Base(c.Wasm))}
		if _, err := os.Stat(build.Wasm); err == nil {
			return policyrun.Module(ctx, "", build)
		}
	}
	return policyrun.Module(ctx, dir, c)
}

// A goSource is a Go package built with counters: the Go compiler writes no lines
// into WebAssembly, and its runtime would drown what the callout does.
type goSource struct {
	counters []guest.Counter
	parts    [][]policytest.CodePart // by counter
}

// goModule begins what the Go compiler says of itself in a module.
const goModule = "\x08language\x01\x02Go"

// scriptEngine is in the modules of the SDK for JavaScript: the engine's own mark.
const scriptEngine = "callout-script-1"

// measure makes the form of a callout that counts, and what to read it with.
func (cs *codes) measure(ctx context.Context, dir string, c policyfile.Callout, wasm []byte, o *guest.ModuleOptions) ([]byte, *goSource, error) {
	folder := ""
	switch {
	case cs.search:
		o.Slots, o.MaxFailures = 1, -1
	case c.GoPackage != "":
		folder = policyfile.Under(dir, c.GoPackage)
	case bytes.Contains(wasm, []byte(goModule)):
		folder = filepath.Dir(policyfile.Under(dir, c.Wasm))
	}
	if folder == "" || !isProgram(ctx, folder) {
		o.Cover = true
		return wasm, nil, nil
	}
	b, known := cs.built[folder]
	if !known {
		var err error
		if b.wasm, b.source, err = goCounted(ctx, folder); err != nil {
			return nil, nil, err
		}
		if cs.built != nil {
			cs.built[folder] = b
		}
	}
	o.Counters = b.source.counters
	return b.wasm, b.source, nil
}

// goCounted builds a Go package with counters.
func goCounted(ctx context.Context, folder string) ([]byte, *goSource, error) {
	tmp, err := os.MkdirTemp("", "calloutd-cover-")
	if err != nil {
		return nil, nil, err
	}
	defer os.RemoveAll(tmp)
	s := new(goSource)
	overlay, err := s.instrument(ctx, folder, tmp)
	if err != nil {
		return nil, nil, err
	}
	wasm, err := policyrun.GoBuild(ctx, folder, "-overlay", overlay)
	return wasm, s, err
}

// isProgram reports whether a folder has a Go command that can be a callout.
func isProgram(ctx context.Context, folder string) bool {
	out, err := goTool(ctx, folder, "list", "-f", "{{.Name}}")
	return err == nil && strings.TrimSpace(string(out)) == "main"
}

// goTool runs the go command for callouts.
func goTool(ctx context.Context, folder string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Env = folder, append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
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
func (s *goSource) instrument(ctx context.Context, folder, tmp string) (overlay string, err error) {
	folder, err = filepath.Abs(folder)
	if err != nil {
		return "", err
	}
	list, err := goTool(ctx, folder, "list", "-f", `{{join .GoFiles "\n"}}`)
	if err != nil {
		return "", err
	}
	replace := map[string]string{}
	where := "package main\n\nimport \"unsafe\"\n"
	for n, file := range strings.Fields(string(list)) {
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

// code is what of a callout ran.
func (m *measured) code() policytest.Code {
	c := m.guest.Coverage()
	if m.script {
		return policytest.Code{Module: m.module, Unit: "blocks", Script: true}
	}
	if m.source == nil {
		return policytest.BlocksOf(m.module, c.Blocks, c.Ran)
	}
	out := policytest.Code{Module: m.module, Unit: "statements"}
	for n, parts := range m.source.parts {
		for k, p := range parts {
			p.Ran = c.Counted[n][k]
			out.Parts = append(out.Parts, p)
		}
	}
	return out
}

// configure tries a configuration with a callout.
func (cs *codes) configure(_ context.Context, callout string, config []byte) error {
	for _, m := range cs.all {
		if string(m.callout) == callout {
			return m.guest.Try(config)
		}
	}
	return fmt.Errorf("the policy has no callout %q", callout)
}

// nearPath is a path as people here would write it.
func nearPath(path string) string {
	here, err := os.Getwd()
	if err != nil || !filepath.IsAbs(path) {
		return path
	}
	if near, err := filepath.Rel(here, path); err == nil && filepath.IsLocal(near) {
		return near
	}
	return path
}
