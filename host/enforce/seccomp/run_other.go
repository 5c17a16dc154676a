//go:build !linux || (!amd64 && !arm64)

package seccomp

import (
	"context"
	"os"
	"os/exec"
	"runtime"

	"github.com/calloutd/calloutd/host/enforce"
)

// Run is not supported here: it returns an *enforce.UnsupportedError.
func Run(context.Context, Options, *exec.Cmd) (*os.ProcessState, error) {
	return nil, &enforce.UnsupportedError{Name: enforce.UserNotif, Why: "the seccomp backend is not built for " + runtime.GOOS + "/" + runtime.GOARCH}
}
