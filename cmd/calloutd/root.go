package main

import "github.com/spf13/cobra"

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "calloutd",
		Short: "Run WFP connect-redirect callouts, written in any wasm language, on real connections",
		Long: `calloutd runs connect-redirect callouts as WebAssembly modules: a callout sends a
program's connect() to a local proxy with a redirect record, and the proxy asks
Winsock Kernel whom the connection was for.

Exit codes: 1 is a no (blocked, mistakes, something is missing), 125 a failure of
calloutd itself. run ends with the code of its command.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(
		newRun(), newAttach(), newGateway(), // enforce
		newServe(), newStatus(), // as a daemon
		newSim(), newExplore(), newTest(), newWhy(), newDiff(), newRecord(), newReplay(), newModels(), newFuzz(), newLearn(), newCheck(), // try out
		newNew(), newBuild(), newInspect(), newBench(), // make
		newSchema(), newSpec(), newDoctor(), newMan(), newCompletion(), newVersion(),
	)
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

// policyFlag adds the flag that names the policy, which must be given.
func policyFlag(cmd *cobra.Command, path *string) {
	policyVar(cmd, path, "policy file, or folder with a policy.yaml (required)")
	_ = cmd.MarkFlagRequired("policy") // fails only for a flag that does not exist
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
