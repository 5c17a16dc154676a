// Command calloutd runs connection-redirect callouts on real connections.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
)

// The main thread must stay out of the pool: a seccomp filter is installed on
// a thread that ends afterwards, and the main one never would.
func init() { runtime.LockOSThread() }

func main() {
	err := newRoot().ExecuteContext(context.Background())
	var code exitCode
	switch {
	case err == nil:
	case errors.As(err, &code):
		os.Exit(int(code))
	default:
		fmt.Fprintf(os.Stderr, "calloutd: %v\n", err)
		os.Exit(125) // as env and docker: the tool failed, not the command
	}
}

// An exitCode is the exit code of the command that ran, or of a check that failed.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }
