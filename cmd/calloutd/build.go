package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/calloutd/calloutd/sdk/project"
)

func newBuild() *cobra.Command {
	return &cobra.Command{
		Use:   "build [DIR]",
		Short: "Build the callout of a policy project",
		Long: `Build finds the compiler of the project's language and makes policy.wasm in its folder:
the same bytes from the same source and compiler, wherever the folder is. When something
is missing it says what to install. The project's Makefile has the same commands.

It ends with code 1 when the compiler refuses the source, or the engine the script, with
125 when something is missing or it is interrupted.`,
		Example:           "  calloutd build no-telnet",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: folders,
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := "."
			if len(args) > 0 {
				dir = args[0]
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			path, err := "", readable(ctx, dir)
			if err == nil {
				path, err = project.Build(ctx, dir, cmd.ErrOrStderr())
			}
			var refused *project.BuildError
			switch {
			case errors.Is(err, context.Canceled):
				return errors.New("interrupted: nothing is built")
			case errors.As(err, &refused):
				complain(cmd.ErrOrStderr(), err)
				return exitCode(codeNo)
			case err != nil:
				return err
			}
			wasm, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %d bytes, sha256 %x\n", path, len(wasm), sha256.Sum256(wasm))
			return err
		},
	}
}
