package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/calloutd/calloutd/host/policyfile"
	"github.com/calloutd/calloutd/host/policytest"
	"github.com/calloutd/calloutd/host/policytrace"
	"github.com/calloutd/calloutd/sdk/project/wholefile"
)

// A testFile is a file of cases that is run.
type testFile struct {
	*testOptions
	path    string
	archive *archive
	suite   *policytest.Suite
	policy  string // the file of the policy
	own     *policyfile.File
	reached *policytest.Coverage
	out     *outcome
	results map[*policytest.Case]policytest.Result
	built   map[string]goBuild
}

// file runs the cases of one file.
func (o *testOptions) file(ctx context.Context, path string, only *regexp.Regexp, out *outcome) error {
	f := testFile{testOptions: o, path: path, out: out, results: map[*policytest.Case]policytest.Result{}, built: map[string]goBuild{}}
	if err := f.read(); err != nil {
		return err
	}
	f.reached = policytest.NewCoverage(f.own)
	for _, with := range f.suite.Withs() {
		if err := f.runBeside(ctx, with, only); err != nil {
			return err
		}
	}
	var results []policytest.Result // in the order of the file
	for i := range f.suite.Cases {
		if r, ok := f.results[&f.suite.Cases[i]]; ok {
			results = append(results, r)
		}
	}
	var err error
	if o.update {
		results, err = f.updated(results)
	}
	out.results = append(out.results, results...)
	out.policies = append(out.policies, policytest.PolicyCoverage{Policy: f.policy, Summary: f.reached.Summary()})
	return err
}

// read reads the cases and their policy.
func (f *testFile) read() error {
	src, err := readCases(f.path)
	if err != nil {
		return err
	}
	f.archive = &archive{cases: src, src: src}
	if isArchive(f.path) {
		if f.archive, err = readArchive(f.path, src); err != nil {
			return err
		}
	}
	if f.suite, err = policytest.Parse(f.path, f.archive.cases); err != nil {
		return err
	}
	f.policy, f.own = policyOf(f.path, f.suite, f.archive), f.archive.policy
	if f.own == nil {
		f.out.uses(f.policy)
		f.own, err = policyfile.LoadEach(f.policy, f.out.uses)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%s: there is no policy for its cases: %w (policy: names another file)", f.path, err)
	}
	return err
}

// runBeside runs the cases that have this beside their policy.
func (f *testFile) runBeside(ctx context.Context, with []string, only *regexp.Regexp) error {
	file, err := putBeside(f.own, filepath.Dir(f.path), with, io.Discard)
	if err == nil && len(f.beside.words) > 0 {
		file, err = putBeside(file, "", slices.DeleteFunc(slices.Clone(f.beside.words), func(w string) bool { return slices.Contains(with, w) }), io.Discard)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	code := codes{builds: f.builds, built: f.built, opening: f.out.uses}
	p, err := code.describe(ctx, f.policy, file)
	if err != nil {
		return err
	}
	defer p.Close()
	world := policytrace.World(p)
	world.Configure = code.configure
	if err := f.suite.Bind(file, world.Proxies, with...); err != nil {
		return err
	}
	var cases []*policytest.Case
	for i := range f.suite.Cases {
		if c := &f.suite.Cases[i]; slices.Equal(c.With, with) && only.MatchString(c.Name) {
			cases = append(cases, c)
		}
	}
	for _, r := range policytest.Run(ctx, world, f.suite, cases, f.parallel, f.reached) {
		f.results[r.Case] = r
	}
	for _, m := range code.all {
		if f.owns(m) {
			f.out.add(m.code())
		}
	}
	return nil
}

// owns reports whether a callout is the policy's, and not of what is beside it.
func (f *testFile) owns(m *measured) bool {
	return slices.ContainsFunc(f.own.Callouts, func(c policyfile.Callout) bool { return c.ID == m.callout })
}

// policyOf is the file of the policy that cases are for.
func policyOf(path string, s *policytest.Suite, a *archive) string {
	ext := filepath.Ext(path)
	switch {
	case a.policy != nil:
		return path
	case s.Policy != "":
		return policyfile.Under(filepath.Dir(path), s.Policy)
	case isArchive(path):
		return strings.TrimSuffix(path, "_test.txtar") + ".yaml"
	}
	return strings.TrimSuffix(path, "_test"+ext) + ext
}

// readCases reads a file, of one byte more than the limit if it is too long.
func readCases(path string) ([]byte, error) {
	f, err := wholefile.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return policytest.Read(f)
}

// updated rewrites the file and counts what it rewrote as passed.
func (f *testFile) updated(rs []policytest.Result) ([]policytest.Result, error) {
	if !slices.ContainsFunc(rs, func(r policytest.Result) bool { return !r.Passed() }) {
		return rs, nil
	}
	cases, err := policytest.Update(f.suite, rs)
	if err != nil {
		return rs, err
	}
	for i := range rs {
		rs[i].Differences = nil
	}
	return rs, wholefile.Write(f.path, f.archive.with(cases))
}
