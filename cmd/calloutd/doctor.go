package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/calloutd/calloutd/host/enforce"
)

func newDoctor() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "doctor", Short: "Say what this kernel can enforce and what is missing for it", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			caps := enforce.Probe()
			out := cmd.OutOrStdout()
			if asJSON {
				return json.NewEncoder(out).Encode(caps)
			}
			for _, c := range caps {
				mark := "yes"
				if !c.Supported {
					mark = "no "
				}
				fmt.Fprintf(out, "%s  %-22s %s\n", mark, c.Name, c.Detail)
				if !c.Supported && c.Need != "" {
					fmt.Fprintf(out, "     %-22s needs %s\n", "", c.Need)
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
