package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newCheck() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE...",
		Short: "Check policy files and the callouts they name",
		Long:  "Check reads each policy, compiles its filters and loads its callouts, and reports every mistake with its place.",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, files []string) error {
			bad := false
			for _, file := range files {
				w, err := open(cmd.Context(), file, worldOptions{})
				if err != nil {
					bad = true
					fmt.Fprintln(cmd.ErrOrStderr(), err)
					continue
				}
				p := w.engine.Policy()
				w.Close()
				fmt.Fprintf(cmd.OutOrStdout(), "%s: ok: %d filters, %d callouts, %d proxies\n", file, len(p.Filters), len(w.file.Callouts), len(w.file.Proxies))
			}
			if bad {
				return exitCode(1)
			}
			return nil
		},
	}
}
