package main

import (
	"github.com/spf13/cobra"

	"github.com/calloutd/calloutd/host/policyfile"
)

func newSchema() *cobra.Command {
	return &cobra.Command{
		Use: "schema", Short: "Print the JSON Schema of policy files, for editors", Args: cobra.NoArgs,
		Long: `Schema prints the JSON Schema of policy files. An editor with the YAML language server
completes keys, layers and fields when the first line of a policy names it:

  # yaml-language-server: $schema=./schema.json`,
		Example: "  calloutd schema > schema.json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(policyfile.Schema())
			return err
		},
	}
}
