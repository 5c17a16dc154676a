package main

import (
	"errors"

	"github.com/spf13/cobra"
)

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "calloutd",
		Short: "Run WFP connect-redirect callouts, written in any wasm language, on real connections",
		Long: `calloutd runs connect-redirect callouts as WebAssembly modules: a callout sends a
program's connect() to a local proxy with a redirect record, and the proxy asks
Winsock Kernel whom the connection was for.

The first steps, which need no compiler:
  calloutd new js hello && calloutd build hello && calloutd test hello
  calloutd explore --open hello

Exit codes: 1 is a no (blocked, mistakes, something is missing), 125 a failure of
calloutd itself. run ends with the code of its command.

Modules are compiled once. What is kept of them takes 1024 MiB of the user's cache
folder at most, or as CALLOUTD_CACHE_MIB says; with 0 nothing is kept.`,
		SilenceUsage:  true,
		SilenceErrors: true,

		PersistentPreRunE: checkCache,
	}
	for _, g := range []struct {
		title    string
		commands []*cobra.Command
	}{
		{"Write a policy:", []*cobra.Command{newNew(), newBuild(), newCheck(), newLearn(), newSchema()}},
		{"Try it out, on any system:", []*cobra.Command{newSim(), newExplore(), newWhy(), newTest(), newFuzz(), newDiff(), newModels()}},
		{"Enforce it, on Linux:", []*cobra.Command{newRun(), newAttach(), newGateway(), newServe(), newStatus(), newDoctor()}},
		{"Look at what happened:", []*cobra.Command{newRecord(), newReplay()}},
		{"Look inside:", []*cobra.Command{newInspect(), newBench(), newSpec()}},
	} {
		root.AddGroup(&cobra.Group{ID: g.title, Title: g.title})
		for _, c := range g.commands {
			c.GroupID = g.title
			root.AddCommand(c)
		}
	}
	root.AddCommand(newMan(), newCompletion(), newVersion())
	root.Version = versionText()
	root.SetVersionTemplate(thisBuild().String() + "\n")
	root.SetFlagErrorFunc(wrongFlag)
	root.InitDefaultHelpCmd()
	if help, _, err := root.Find([]string{"help"}); err == nil {
		help.Args = func(_ *cobra.Command, args []string) error { // Cobra's would end with 0.
			if _, _, err := root.Find(args); err != nil {
				return noCommand(root, args[0])
			}
			return nil
		}
	}
	return root
}

// policyHere adds the flag that names the policy. Without it the policy is that of this folder.
func policyHere(cmd *cobra.Command, path *string) {
	policyVar(cmd, path, "policy file, or folder with a policy.yaml (default: this folder)")
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) (err error) {
		if cmd.Flags().Changed("policy") {
			return nil
		}
		if *path, err = policyAt("."); err != nil {
			return errors.New("there is no policy.yaml in this folder: give --policy FILE or --policy DIR")
		}
		return nil
	}
}

func policyVar(cmd *cobra.Command, path *string, usage string) {
	cmd.Flags().VarP((*policyPath)(path), "policy", "p", usage)
	_ = cmd.MarkFlagFilename("policy", "yaml", "yml") // fails only for a flag that does not exist
}

// A policyPath is a flag's policy file: of a folder its policy.yaml.
type policyPath string

func (p *policyPath) String() string { return string(*p) }

// Type is what help calls the value.
func (p *policyPath) Type() string { return "string" }

// Set is of pflag.Value.
func (p *policyPath) Set(arg string) error {
	file, err := policyAt(arg)
	*p = policyPath(file)
	return err
}

func jsonFlag(cmd *cobra.Command, on *bool) {
	cmd.Flags().BoolVar(on, "json", false, "print JSON, one object a line")
}

// maxConnectionsFlag is for a command that carries connections, of which one of those who make
// them leaves some for others.
func maxConnectionsFlag(cmd *cobra.Command, most *int64, who string) {
	cmd.Flags().Int64Var(most, "max-connections", 0, "carry no more connections at once, of one "+who+" no more than are left for others (default: a quarter of RLIMIT_NOFILE)")
}
