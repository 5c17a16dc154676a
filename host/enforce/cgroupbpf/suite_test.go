//go:build linux && (amd64 || arm64)

package cgroupbpf

import (
	"context"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce/enforcetest"
	"github.com/calloutd/calloutd/host/fwpm"
)

type backend struct{ cgroup string }

func (b backend) Run(ctx context.Context, s enforcetest.Site, cmd *exec.Cmd) error {
	a, err := Attach(ctx, Options{Cgroup: b.cgroup, ALE: s.ALE, Policy: s.Policy, Logf: s.Logf, OnBlocked: s.OnBlocked})
	if err != nil {
		return err
	}
	defer a.Close()
	dir, err := os.Open(b.cgroup)
	if err != nil {
		return err
	}
	defer dir.Close()
	cmd.SysProcAttr = &unix.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	return cmd.Run()
}

func (backend) Abilities() enforcetest.Abilities {
	return enforcetest.Abilities{SeesPrograms: true, DecidesDatagrams: true, RedirectsDatagrams: true}
}

func TestSuite(t *testing.T) {
	enforcetest.Run(t, backend{newSite(t, &fwpm.Policy{}, nil).cgroup})
}
