package main

import (
	"net"

	"github.com/spf13/cobra"
)

// completeFlag says to shells what a flag takes.
func completeFlag(cmd *cobra.Command, name string, words ...string) {
	// It fails only for a flag that does not exist, or was completed before.
	_ = cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
}

// What arguments are, for shells.
var (
	policyFiles = completeFiles("yaml", "yml")
	moduleFiles = completeFiles("wasm")
	folders     = cobra.FixedCompletions(nil, cobra.ShellCompDirectiveFilterDirs)
)

// completeFiles offers files with one of the extensions, and folders.
func completeFiles(extensions ...string) cobra.CompletionFunc {
	return cobra.FixedCompletions(extensions, cobra.ShellCompDirectiveFilterFileExt)
}

// completeInterfaces offers the network interfaces of this system.
func completeInterfaces(*cobra.Command, []string, string) (names []cobra.Completion, _ cobra.ShellCompDirective) {
	all, _ := net.Interfaces() // Who cannot be told types.
	for _, i := range all {
		names = append(names, i.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
