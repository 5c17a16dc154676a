package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/calloutd/calloutd/host/policyfile"
	"github.com/calloutd/calloutd/host/policyrun"
)

func newCheck() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check [FILE|DIR...]",
		Short: "Check policy files and the callouts they name",
		Long: `Check reads each policy, builds and loads its callouts with their configuration, and
reports every mistake with its place. It starts no proxy. A folder stands for its
policy.yaml, or, if it has none, for each that is below it; without a name it is this
folder. It ends with code 1 when there are mistakes, with 125 when a file cannot be read.

It warns of what the engine takes and hardly anybody means: callouts, proxies, sets and
other objects that nothing uses, and callouts that know a proxy and are only asked where
nothing can be redirected. Warnings do not change the code.`,
		Example:           "  calloutd check\n  calloutd check policy.yaml examples",
		ValidArgsFunction: policyFiles,
		RunE: tidily(func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				args = []string{"."}
			}
			code := 0
			for _, file := range policiesBelow(args) {
				file, err := policyAt(file)
				var p *policyrun.Policy
				if err == nil {
					p, err = describe(cmd.Context(), file, newTracer(cmd.ErrOrStderr(), asJSON, false))
				}
				if stopped := cmd.Context().Err(); stopped != nil {
					return stopped
				}
				if err != nil {
					code = max(code, failure(err))
					report(cmd, asJSON, file, err)
					continue
				}
				for _, w := range p.File.Warnings() {
					report(cmd, asJSON, file, w)
				}
				if !asJSON {
					fmt.Fprintf(cmd.OutOrStdout(), "%s: ok: %s, %s, %s\n", policyfile.ShownPath(file), counted(written(p.File), "filter"), counted(len(p.File.Callouts), "callout"), proxies(len(p.File.Proxies)))
				}
				p.Close()
			}
			if code > 0 {
				return exitCode(code)
			}
			return nil
		}),
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

// policiesBelow puts in the place of folders without a policy all policies below them. What
// has none stays, and is an error in its turn.
func policiesBelow(args []string) (all []string) {
	for _, arg := range args {
		var below []string
		if _, err := policyAt(arg); err != nil {
			_ = filepath.WalkDir(arg, func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.Name() == "policy.yaml" && !d.IsDir() {
					below = append(below, path)
				}
				return nil // What cannot be looked into has no policy that could be read.
			})
		}
		if len(below) == 0 {
			below = []string{arg}
		}
		all = append(all, below...)
	}
	return all
}

// failure is the code for what is wrong with a policy: one that cannot be read has no mistakes.
func failure(err error) int {
	for _, err := range flatten(err) {
		if !errors.As(err, new(policyfile.Problem)) {
			return codeTool
		}
	}
	return codeNo
}

// written is how many filters a policy has as people count them: what is for both IP
// versions is two to the engine.
func written(f *policyfile.File) int {
	entries := map[string]bool{}
	for i := range f.Policy.Filters {
		entries[f.Entry(f.Policy.Filters[i].ID)] = true
	}
	return len(entries)
}

func proxies(n int) string {
	if n == 1 {
		return "1 proxy"
	}
	return count(n) + " proxies"
}

// report prints mistakes: as text on standard error, as JSON on standard output.
func report(cmd *cobra.Command, asJSON bool, file string, err error) {
	if !asJSON {
		complain(cmd.ErrOrStderr(), err)
		return
	}
	out := json.NewEncoder(cmd.OutOrStdout())
	for _, err := range flatten(err) {
		var p policyfile.Problem
		if !errors.As(err, &p) {
			p.File, p.Message = file, err.Error()
		}
		_ = out.Encode(p) // The output remembers.
	}
}
