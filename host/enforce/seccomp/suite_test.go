//go:build linux && (amd64 || arm64)

package seccomp

import (
	"context"
	"os/exec"
	"testing"

	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/enforce/enforcetest"
)

type backend struct{ isolate bool }

func (b backend) Run(ctx context.Context, s enforcetest.Site, cmd *exec.Cmd) error {
	_, err := Run(ctx, Options{ALE: s.ALE, Logf: s.Logf, OnBlocked: s.OnBlocked, Isolate: b.isolate}, cmd)
	return err
}

func (backend) Abilities() enforcetest.Abilities {
	return enforcetest.Abilities{AsksEngine: true, BlocksWithErrno: true, SeesPrograms: true, DecidesDatagrams: true, RedirectsDatagrams: true}
}

func TestSuite(t *testing.T) {
	t.Run("plain", func(t *testing.T) {
		need(t)
		enforcetest.Run(t, backend{})
	})
	t.Run("isolated", func(t *testing.T) {
		need(t, enforce.UserNS)
		enforcetest.Run(t, backend{isolate: true})
	})
}
