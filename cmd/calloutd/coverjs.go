package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/calloutd/calloutd/cmd/calloutd/internal/jscover"
	"github.com/calloutd/calloutd/host/guest"
	"github.com/calloutd/calloutd/host/policyfile"
	"github.com/calloutd/calloutd/host/policytest"
	"github.com/calloutd/calloutd/sdk/project"
	"github.com/calloutd/calloutd/sdk/project/wholefile"
)

// A script is measured by counters in its text: the blocks of its module are the
// interpreter's.

// countScript returns a module whose script counts. The source is the file beside it,
// if it is the same.
func (m *measured) countScript(wasm, script []byte, o *guest.ModuleOptions) []byte {
	file := m.module
	beside := filepath.Join(filepath.Dir(m.module), "policy.js")
	if src, err := wholefile.Read(beside); err == nil && bytes.Equal(src, script) {
		file = beside
	}
	counted, ok := m.count(string(script), file, 1, o)
	if !ok {
		return wasm
	}
	out, err := project.WithScript(wasm, []byte(counted))
	if err != nil {
		m.uncounted, m.source, o.Counters = "with counters "+err.Error(), nil, nil
		return wasm
	}
	return out
}

// countConfig has the script of a configuration count. Each policy has its own.
func (m *measured) countConfig(policy *policyfile.File, o *guest.ModuleOptions) {
	script, _, _ := scriptIn(o.Config) // Without one the engine says so.
	file, line := scriptPlace(policy, string(m.callout), script)
	m.module = fmt.Sprintf("%s, script of %s", file, m.callout)
	counted, ok := m.count(script, file, line, o)
	if !ok {
		return
	}
	m.reconfigure = func(config []byte) []byte {
		other, rest, err := scriptIn(config)
		if err != nil || other != script {
			return config
		}
		if rest["script"], err = json.Marshal(counted); err != nil {
			return config
		}
		with, err := json.Marshal(rest)
		if err != nil {
			return config
		}
		return with
	}
	o.Config = m.reconfigure(o.Config)
}

// count gives a script counters. Its first line is one of a file.
func (m *measured) count(script, file string, line int, o *guest.ModuleOptions) (counted string, ok bool) {
	counted, statements, err := jscover.Count(script)
	if err != nil {
		m.uncounted = "the script cannot be measured: " + err.Error()
		return "", false
	}
	var parts []policytest.CodePart
	for _, s := range statements {
		parts = append(parts, policytest.CodePart{File: nearPath(file), Line: line + s.Line - 1, End: line + s.End - 1, Size: 1})
	}
	o.Counters = []guest.Counter{{Export: jscover.Export, Len: len(parts)}}
	m.source = &countedCode{o.Counters, [][]policytest.CodePart{parts}}
	return counted, true
}

// scriptIn is the script of a configuration, and all of that.
func scriptIn(config []byte) (script string, all map[string]json.RawMessage, err error) {
	if err := json.Unmarshal(config, &all); err != nil {
		return "", nil, err
	}
	return script, all, json.Unmarshal(all["script"], &script)
}

// scriptPlace is where the script of a callout begins in a policy: the first lines
// behind the configuration's key that are its lines, but for how far they are indented
// and what stands for something else. Written otherwise, it has its own lines.
func scriptPlace(policy *policyfile.File, callout, script string) (file string, line int) {
	var at policyfile.Problem
	if !errors.As(policy.At("callout", callout, "config", errors.New("")), &at) {
		return callout, 1
	}
	src, err := wholefile.Read(at.File)
	if err != nil {
		return at.File, 1
	}
	lines, want := strings.Split(string(src), "\n"), strings.Split(strings.TrimRight(script, "\n"), "\n")
	for n := max(0, at.Line-1); n+len(want) <= len(lines); n++ {
		if sameLines(lines[n:n+len(want)], want) {
			return at.File, n + 1
		}
	}
	return at.File, 1
}

func sameLines(got, want []string) bool {
	for i := range want {
		if strings.TrimSpace(got[i]) != strings.TrimSpace(want[i]) && !strings.Contains(got[i], "${") {
			return false
		}
	}
	return true
}
