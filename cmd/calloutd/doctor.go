package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/calloutd/calloutd/host/enforce"
)

// A finding is what doctor says about one thing.
type finding struct {
	Name          string       `json:"name"`
	Present       bool         `json:"present"`
	Need          enforce.Need `json:"need"`
	For           string       `json:"for"`
	Missing       string       `json:"missing,omitempty"` // why, and what helps
	MinimumKernel string       `json:"minimum_kernel,omitempty"`
}

func newDoctor() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "doctor", Short: "Say what this system can enforce and what is missing for it", Args: cobra.NoArgs,
		Long: `Doctor asks the running kernel, not its version number, for everything that calloutd run
needs. It ends with code 1 when a required thing is missing; sim and check work without any.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			found := examine()
			if asJSON {
				if err := json.NewEncoder(cmd.OutOrStdout()).Encode(found); err != nil {
					return err
				}
			} else {
				prescribe(cmd.OutOrStdout(), found)
			}
			for _, f := range found {
				if f.Need == enforce.Required && !f.Present {
					return exitCode(codeNo)
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func examine() []finding {
	var found []finding
	for _, c := range enforce.Probe() {
		f := finding{Name: c.Name, Present: c.Supported, Need: c.Need, For: c.Detail, MinimumKernel: c.MinimumKernel}
		if !c.Supported {
			f.Missing = c.Why
		}
		found = append(found, f)
	}
	tool := finding{Name: "go command", Need: enforce.Optional, For: "builds callouts that a policy names with go:", Present: true}
	if _, err := exec.LookPath("go"); err != nil {
		tool.Present, tool.Missing = false, "not in PATH: policies can name built modules with wasm: instead"
	}
	return append(found, tool)
}

func prescribe(out io.Writer, found []finding) {
	p := paintFor(out)
	fmt.Fprintf(out, "%s/%s\n", runtime.GOOS, runtime.GOARCH)
	missing := false
	for _, f := range found {
		word := "yes"
		if !f.Present {
			word = "no"
		}
		fmt.Fprintf(out, "%s%*s %-32s %-12s %s\n", p.word(word), 3-len(word), "", f.Name, f.Need, f.For)
		if f.Present {
			continue
		}
		missing = missing || f.Need == enforce.Required
		fmt.Fprintf(out, "    missing: %s", f.Missing)
		if f.MinimumKernel != "" {
			fmt.Fprintf(out, " (Linux %s has it)", f.MinimumKernel)
		}
		fmt.Fprintln(out)
	}
	if missing {
		fmt.Fprintln(out, "calloutd run cannot work here: something required is missing. sim and check can.")
	} else {
		fmt.Fprintln(out, "calloutd run can work here.")
	}
}
