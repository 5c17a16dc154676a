package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

func newTest() *cobra.Command {
	o := testOptions{}
	cmd := &cobra.Command{
		Use:   "test [FILE|DIR...]",
		Short: "Run the cases that say what policies are expected to do",
		Long: `Test runs the cases of files called *_test.yaml, or of *_test.txtar, which hold a policy
and its cases in one: each describes a connection and what must become of it. A folder
stands for all such files in it and below, a policy for the file beside it. Nothing is
connected. What of the policy no case reached is always printed. It works on every system.

A case can say what stands beside its policy (with:), and --with puts more beside all of
them: policies of other providers, or models of them.

Of a stripped module nobody knows which code is its author's. With --builds a build of it
with debugging information is run and measured in its place.

It ends with code 1 when a case failed or less than --min was reached, with 125 when
there is nothing to run or a file has mistakes.`,
		Example: `  calloutd test examples
  calloutd test policy.yaml --run 'proxy' --verbose
  calloutd test --min 90 --junit report.xml
  calloutd test plugins --min 90 --builds debug`,
		ValidArgsFunction: completeFiles("yaml", "yml", "txtar"),
		RunE:              func(cmd *cobra.Command, args []string) error { return o.test(cmd, args) },
	}
	jsonFlag(cmd, &o.json)
	f := cmd.Flags()
	f.StringVar(&o.run, "run", "", "run only cases whose name matches this regular expression")
	f.StringVar(&o.junit, "junit", "", "write a JUnit report to this file")
	f.StringVar(&o.html, "html", "", "write a page that shows what was reached to this file")
	f.StringVar(&o.lcov, "lcov", "", "write what ran of callouts' sources to this file, in lcov's form")
	f.BoolVar(&o.tap, "tap", false, "print the Test Anything Protocol")
	f.BoolVar(&o.update, "update", false, "take what came for what is wanted: rewrites expectations and nothing else")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "print cases that passed too")
	f.BoolVarP(&o.again, "watch", "w", false, "run the cases again whenever a policy, its cases or its callouts change")
	f.StringVar(&o.builds, "builds", "", "folder with builds of callouts with debugging information: run and measured in the place of modules of the same name")
	_ = cmd.MarkFlagDirname("builds") // fails only for a flag that does not exist
	o.beside.flag(cmd)
	f.IntVar(&o.parallel, "parallel", runtime.GOMAXPROCS(0), "how many cases run at a time")
	f.Float64Var(&o.min, "min", 0, "least percent of each policy's filters and conditions, and of each callout's code, that cases must reach")
	cmd.MarkFlagsMutuallyExclusive("json", "tap")
	_ = cmd.MarkFlagFilename("junit", "xml") // fails only for a flag that does not exist
	return cmd
}

type testOptions struct {
	run, junit, html, lcov     string
	builds                     string // folder of modules to measure
	json, tap, update, verbose bool
	again                      bool
	parallel                   int
	min                        float64
	beside                     beside
}

func (o *testOptions) test(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		args = []string{"."}
	}
	if err := o.check(); err != nil {
		return err
	}
	if o.again {
		return o.watch(cmd, args)
	}
	return tidily(o.all)(cmd, args)
}

func (o *testOptions) all(cmd *cobra.Command, args []string) error {
	var out outcome
	err := o.once(cmd.Context(), args, &out, newProgress(cmd.ErrOrStderr(), 0, "cases"))
	if err = cmp.Or(cmd.Context().Err(), err); err != nil {
		return err
	}
	return o.report(cmd.OutOrStdout(), &out)
}

// check refuses what would make a gate that nothing, or everything, passes.
func (o *testOptions) check() error {
	switch {
	case o.parallel < 1:
		return fmt.Errorf("--parallel %d: expected a number from 1", o.parallel)
	case !(o.min >= 0 && o.min <= 100): // Not a number is neither.
		return fmt.Errorf("--min %g: expected a percentage from 0 to 100", o.min)
	}
	if o.builds != "" {
		if info, err := os.Stat(o.builds); err != nil {
			return fmt.Errorf("--builds: %w", err)
		} else if !info.IsDir() {
			return fmt.Errorf("--builds %s: expected a folder", o.builds)
		}
	}
	return errors.Join(isFile("--junit", o.junit), isFile("--html", o.html), isFile("--lcov", o.lcov))
}

// once runs all cases.
func (o *testOptions) once(ctx context.Context, args []string, out *outcome, bar *progress) error {
	only, err := regexp.Compile(o.run)
	if err != nil {
		return fmt.Errorf("--run: %w", err)
	}
	files, err := caseFiles(args)
	if err != nil {
		return err
	}
	var errs []error
	bar.all = int64(len(files))
	for i, file := range files {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if len(files) > 1 {
			bar.at(int64(i), len(out.results))
		}
		out.uses(file)
		errs = append(errs, o.file(ctx, file, only, out))
	}
	bar.end()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if len(out.results) == 0 {
		return fmt.Errorf("no case matches --run %q", o.run)
	}
	return nil
}

// caseFiles lists the files of cases that the arguments stand for.
func caseFiles(args []string) ([]string, error) {
	var files []string
	for _, arg := range args {
		found, err := casesAt(arg)
		switch {
		case err != nil:
			return nil, err
		case len(found) == 0:
			return nil, fmt.Errorf("%s: there are no cases: expected files called *_test.yaml", arg)
		}
		files = append(files, found...)
	}
	slices.Sort(files)
	return slices.Compact(files), nil
}

func casesAt(path string) (files []string, err error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		err = filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && isCases(p) {
				files = append(files, p)
			}
			return err
		})
		return files, err
	case isCases(path):
		return []string{path}, nil
	}
	beside := casesBeside(path)
	if _, err := os.Stat(beside); err != nil {
		return nil, fmt.Errorf("%s has no cases, which would be in %s: %w", path, beside, errors.Unwrap(err))
	}
	return []string{beside}, nil
}

func isCases(path string) bool {
	return strings.HasSuffix(path, "_test.yaml") || strings.HasSuffix(path, "_test.yml") || isArchive(path)
}
