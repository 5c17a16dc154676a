package main

import (
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"slices"

	"github.com/spf13/cobra"

	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/enforce/cgroupbpf"
	"github.com/calloutd/calloutd/host/enforce/nftgateway"
)

// A finding is what doctor says about one thing.
type finding struct {
	Command       string       `json:"command"` // that needs it
	Name          string       `json:"name"`
	Present       bool         `json:"present"`
	Need          enforce.Need `json:"need"`
	For           string       `json:"for"`
	Missing       string       `json:"missing,omitempty"` // why
	Remedy        string       `json:"remedy,omitempty"`  // what helps
	MinimumKernel string       `json:"minimum_kernel,omitempty"`
}

func newDoctor() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "doctor", Short: "Say what this system can enforce, what is missing for it and what helps", Args: cobra.NoArgs,
		Long: `Doctor asks the running kernel, not its version number, for everything that the commands
need which enforce policies. It ends with code 1 when something that run requires is missing;
the others say so themselves. sim, check and test work without any.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			found := examine()
			if asJSON {
				for _, f := range found {
					if err := encode(cmd.OutOrStdout(), f); err != nil {
						return err
					}
				}
			} else {
				prescribe(cmd.OutOrStdout(), found)
			}
			if !works(found, enforce.CommandRun) {
				return exitCode(codeNo)
			}
			return nil
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func examine() []finding {
	var found []finding
	for _, c := range slices.Concat(enforce.Probe(), cgroupbpf.Probe(), nftgateway.Probe()) {
		found = append(found, finding{Command: c.Command, Name: c.Name, Present: c.Supported, Need: c.Need, For: c.Detail, Missing: c.Why,
			Remedy: c.Remedy, MinimumKernel: c.MinimumKernel})
	}
	tool := finding{Command: "policies", Name: "go command", Need: enforce.Optional, For: "builds callouts that a policy names with go:", Present: true}
	if _, err := exec.LookPath("go"); err != nil {
		tool.Present, tool.Missing, tool.Remedy = false, "not in PATH", "name built modules with wasm: instead"
	}
	return append(found, tool)
}

// works reports whether nothing is missing that a command requires. run
// --isolate requires what run does, too.
func works(found []finding, command string) bool {
	return !slices.ContainsFunc(found, func(f finding) bool {
		needs := f.Command == command || command == enforce.CommandIsolate && f.Command == enforce.CommandRun
		return needs && f.Need == enforce.Required && !f.Present
	})
}

func prescribe(out io.Writer, found []finding) {
	p := paintFor(out)
	fmt.Fprintln(out, system())
	command := ""
	for _, f := range found {
		if f.Command != command {
			command = f.Command
			fmt.Fprintf(out, "%s\n", command)
		}
		word := "yes"
		if !f.Present {
			word = "no"
		}
		fmt.Fprintf(out, "  %s%*s %-37s %-12s %s\n", p.word(word), 3-len(word), "", f.Name, f.Need, f.For)
		if f.Present {
			continue
		}
		fmt.Fprintf(out, "      missing: %s", f.Missing)
		if f.MinimumKernel != "" {
			fmt.Fprintf(out, " (Linux %s has it)", f.MinimumKernel)
		}
		fmt.Fprintln(out)
		if f.Remedy != "" {
			fmt.Fprintf(out, "      what helps: %s\n", f.Remedy)
		}
	}
	for _, c := range []string{enforce.CommandRun, enforce.CommandIsolate, enforce.CommandAttach, enforce.CommandGateway} {
		can := "can work here"
		if !works(found, c) {
			can = "cannot work here: something required is missing"
		}
		fmt.Fprintf(out, "calloutd %s %s\n", c, can)
	}
}

// system says on what this runs, and as whom.
func system() string {
	s := runtime.GOOS + "/" + runtime.GOARCH
	if r := enforce.System(); r != "" {
		s += ", " + r
	}
	return s
}
