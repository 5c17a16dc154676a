package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/calloutd/calloutd/host/policyfile"
	"github.com/calloutd/calloutd/host/policytest"
)

func newSchema() *cobra.Command {
	kinds := map[string]func() []byte{"policy": policyfile.Schema, "cases": policytest.Schema}
	return &cobra.Command{
		Use: "schema [policy|cases]", Short: "Print the JSON Schema of policy files, or of their cases, for editors", Args: cobra.MaximumNArgs(1),
		ValidArgs: []string{"policy", "cases"},
		Long: `Schema prints the JSON Schema of policy files, or of files of cases. An editor with the
YAML language server completes keys, layers and fields when the first line of a file
names it:

  # yaml-language-server: $schema=./schema.json`,
		Example: "  calloutd schema > schema.json\n  calloutd schema cases > cases.json",
		RunE: func(cmd *cobra.Command, args []string) error {
			kind := "policy"
			if len(args) > 0 {
				kind = args[0]
			}
			print := kinds[kind]
			if print == nil {
				return fmt.Errorf("schema %q: expected policy or cases", kind)
			}
			_, err := cmd.OutOrStdout().Write(print())
			return err
		},
	}
}
