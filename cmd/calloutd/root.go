package main

import "github.com/spf13/cobra"

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "calloutd",
		Short: "Run WFP connect-redirect callouts, written in any wasm language, on real connections",
		Long: `calloutd runs connect-redirect callouts as WebAssembly modules: a callout sends a
program's connect() to a local proxy with a redirect record, and the proxy asks
Winsock Kernel whom the connection was for.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(newRun(), newSim(), newCheck(), newDoctor(), newVersion())
	return root
}
