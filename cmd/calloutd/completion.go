package main

import (
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// newCompletion is in the place of cobra's own, which prints its help for a shell that
// it does not know and ends with 0.
func newCompletion() *cobra.Command {
	return &cobra.Command{
		Use:   "completion {bash | fish | powershell | zsh}",
		Short: "Print the script that lets a shell complete calloutd's commands, flags and arguments",
		Long: `Completion prints the script for a shell. The examples load it into the shell that runs;
the folders are those where shells look for it from the next one on. bash needs its
package bash-completion for it, and zsh its completion system (autoload -U compinit; compinit).`,
		Example: `  source <(calloutd completion bash)    # or to /etc/bash_completion.d/calloutd
  source <(calloutd completion zsh)     # or to "${fpath[1]}/_calloutd"
  calloutd completion fish | source     # or to ~/.config/fish/completions/calloutd.fish
  calloutd completion powershell | Out-String | Invoke-Expression    # or in $PROFILE`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: cobra.FixedCompletions(shells, cobra.ShellCompDirectiveNoFileComp),
		RunE: func(cmd *cobra.Command, args []string) error {
			generate, ok := shellScripts[args[0]]
			if !ok {
				return fmt.Errorf("there is no script for the shell %q, but for %s", args[0], strings.Join(shells, ", "))
			}
			return generate(cmd.Root(), cmd.OutOrStdout())
		},
	}
}

// shellScripts make the scripts, by shell. All of them describe what they offer.
var shellScripts = map[string]func(root *cobra.Command, out io.Writer) error{
	"bash":       func(root *cobra.Command, out io.Writer) error { return root.GenBashCompletionV2(out, true) },
	"fish":       func(root *cobra.Command, out io.Writer) error { return root.GenFishCompletion(out, true) },
	"powershell": (*cobra.Command).GenPowerShellCompletionWithDesc,
	"zsh":        (*cobra.Command).GenZshCompletion,
}

var shells = slices.Sorted(maps.Keys(shellScripts))

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

// completeCommand offers the programs in PATH for the first word of a command that
// calloutd is to start. A path, and what follows, are files.
func completeCommand(_ *cobra.Command, args []string, word string) (names []cobra.Completion, _ cobra.ShellCompDirective) {
	if len(args) > 0 || strings.ContainsRune(word, filepath.Separator) {
		return nil, cobra.ShellCompDirectiveDefault
	}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		entries, _ := os.ReadDir(dir) // PATH may name what there is not.
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), word) {
				continue
			}
			if info, err := os.Stat(filepath.Join(dir, e.Name())); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
				names = append(names, e.Name())
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), cobra.ShellCompDirectiveDefault
}
