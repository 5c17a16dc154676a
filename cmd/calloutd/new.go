package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/calloutd/calloutd/sdk/project"
)

func newNew() *cobra.Command {
	var redirect bool
	cmd := &cobra.Command{
		Use:   "new LANGUAGE NAME",
		Short: "Make a policy project: a callout, its policy, its cases and the SDK",
		Long: `New makes the folder NAME with a callout in one of the languages, a policy that asks it,
cases that say what is expected, and the SDK it needs, so that nothing is downloaded.
build makes the module of it and test runs the cases. The callout alone has tests of its
language, but for wat: the folder's README says how they run. What exists is never overwritten.

The policy blocks protocols that are not encrypted. With --redirect it sends web
connections to a proxy, and lets pass what the proxy carries on.

LANGUAGE is one of ` + strings.Join(project.Names(), ", ") + `.`,
		Example: `  calloutd new rust no-telnet
  calloutd build no-telnet
  calloutd test no-telnet
  calloutd new go to-proxy --redirect`,
		Args:      cobra.ExactArgs(2),
		ValidArgs: project.Names(),
		RunE: func(cmd *cobra.Command, args []string) error {
			start := project.Blocks
			if redirect {
				start = project.Redirects
			}
			l, err := project.New(".", args[0], args[1], start)
			if err != nil {
				return err
			}
			name, alone := args[1], ""
			if l.Native != nil {
				alone = fmt.Sprintf("  cd %s && %s\n", name, l.Native.Command)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), `%[1]s is a policy, and %[1]s/%[2]s its callout in %[3]s. Next:
  calloutd build %[1]s
  calloutd test %[1]s
%[4]s`, name, l.Main, l.Title, alone)
			return err
		},
	}
	cmd.Flags().BoolVar(&redirect, "redirect", false, "begin with a policy that redirects")
	return cmd
}
