package main

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func newMan() *cobra.Command {
	var date string
	c := &cobra.Command{
		Use:   "man DIR",
		Short: "Write the manual pages",
		Long: `Man writes a manual page for each command to a folder, which must exist: calloutd.1,
calloutd-run.1 and so on.`,
		Example: "  calloutd man /usr/local/share/man/man1\n" +
			"  calloutd man --date 2026-01-31 man    # the same bytes each time",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: folders,
		RunE: func(cmd *cobra.Command, args []string) error {
			day, err := time.Parse(time.DateOnly, date)
			if err != nil {
				return fmt.Errorf("--date %s: want a day as 2026-01-31", date)
			}
			if info, err := os.Stat(args[0]); err != nil {
				return err
			} else if !info.IsDir() {
				return fmt.Errorf("%s is no folder", args[0])
			}
			root := cmd.Root()
			root.DisableAutoGenTag = true
			return doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "calloutd", Manual: "calloutd", Date: &day}, args[0])
		},
	}
	c.Flags().StringVar(&date, "date", time.Now().Format(time.DateOnly), "the day that the pages show")
	return c
}
