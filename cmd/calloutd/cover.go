package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/guest"
	"github.com/calloutd/calloutd/host/policyfile"
	"github.com/calloutd/calloutd/host/policyrun"
	"github.com/calloutd/calloutd/host/policytest"
	"github.com/calloutd/calloutd/sdk/project"
)

// Codes are the callouts of a policy whose code is measured.
type codes struct {
	search bool   // by blocks, one instance of each, whatever fails
	builds string // folder of modules that take the place of those of the same name; empty: none
	all    []*measured
	file   *policyfile.File // the policy, nil if it is read while it is described
	// opening hears of each file that callouts are made of. Optional.
	opening func(file string)
	// built has Go packages that were built to be measured, by folder. Optional.
	built map[string]goBuild
}

// A countedCode is code that counts by itself which of its statements run.
type countedCode struct {
	counters []guest.Counter
	parts    [][]policytest.CodePart // by counter
}

// A measured is a callout whose code is measured.
type measured struct {
	callout fwpm.CalloutID
	module  string // the file or folder it is made of
	config  []byte // what the policy says
	guest   *guest.Module
	source  *countedCode // nil: measured by its blocks
	// uncounted is why nothing of it is counted.
	uncounted string
	// reconfigure puts counters into a configuration. Optional.
	reconfigure func(config []byte) []byte
}

// describe opens a policy whose callouts' code is measured.
func (cs *codes) describe(ctx context.Context, path string, file *policyfile.File) (*policyrun.Policy, error) {
	d := policyrun.Description{Options: newTracer(io.Discard, false, false).options(), File: file}
	d.Module, d.OnInput, cs.file = cs.load, cs.opening, file
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
	m := &measured{callout: c.ID, module: policyfile.Under(dir, c.Wasm+c.GoPackage), config: o.Config}
	cs.all = append(cs.all, m)
	script, scripted := project.ScriptOf(wasm)
	switch {
	case cs.search:
		o.Slots, o.MaxFailures, o.Cover = 1, -1, true
		return wasm, nil
	case scripted && script != nil:
		return m.countScript(wasm, script, o), nil
	case scripted:
		m.countConfig(cs.file, o)
		return wasm, nil
	}
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

// measure makes the form of a callout that counts, and what to read it with.
func (cs *codes) measure(ctx context.Context, dir string, c policyfile.Callout, wasm []byte, o *guest.ModuleOptions) ([]byte, *countedCode, error) {
	folder := ""
	switch {
	case c.GoPackage != "":
		folder = policyfile.Under(dir, c.GoPackage)
	case bytes.Contains(wasm, []byte(goModule)):
		folder = filepath.Dir(policyfile.Under(dir, c.Wasm))
	}
	b, known := cs.built[folder]
	if !known {
		var files []string
		if folder != "" {
			files = programFiles(ctx, folder)
		}
		if len(files) == 0 {
			o.Cover = true
			return wasm, nil, nil
		}
		var err error
		if b.wasm, b.source, err = goCounted(ctx, folder, files); err != nil {
			return nil, nil, err
		}
		if cs.built != nil {
			cs.built[folder] = b
		}
	}
	o.Counters = b.source.counters
	return b.wasm, b.source, nil
}

// code is what of a callout ran.
func (m *measured) code() policytest.Code {
	c := m.guest.Coverage()
	if m.uncounted != "" {
		return policytest.Code{Module: m.module, Unit: "statements", Uncounted: m.uncounted}
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

// configure tries a configuration with a callout, and returns why that refuses it.
func (cs *codes) configure(_ context.Context, r *policytest.Refusal) (why string, err error) {
	for _, m := range cs.all {
		if string(m.callout) == r.Callout {
			config, err := r.Of(m.config)
			if err != nil {
				return "", err
			}
			if m.reconfigure != nil {
				config = m.reconfigure(config)
			}
			err = m.guest.Try(config)
			if no, refused := errors.AsType[*guest.ConfigError](err); refused {
				return no.Why, nil
			}
			return "", err
		}
	}
	return "", fmt.Errorf("the policy has no callout %q", r.Callout)
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
