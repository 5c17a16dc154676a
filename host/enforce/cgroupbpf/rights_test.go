//go:build linux && (amd64 || arm64)

package cgroupbpf

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/enforce/internal/doomed"
	"github.com/calloutd/calloutd/host/fwpm"
)

// with calls f with these capabilities and no others.
func with(t *testing.T, f func(), capabilities ...uint) {
	done := make(chan struct{})
	doomed.Go(func() {
		defer close(done)
		head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		for _, c := range capabilities {
			data[c/32].Permitted |= 1 << (c % 32)
			data[c/32].Effective |= 1 << (c % 32)
		}
		if assert.NoError(t, unix.Capset(&head, &data[0])) {
			f()
		}
	})
	<-done
}

// Somebody without a right is told that it is the right, and no version of Linux,
// that is missing.
func TestWithoutPrivilege(t *testing.T) {
	s := newSite(t, &fwpm.Policy{}, nil)
	require.True(t, readsKernel()) // Package ebpf remembers what the kernel can, and would take what nobody may for what it cannot.
	const needs = "run it as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
	all := []uint{unix.CAP_BPF, unix.CAP_NET_ADMIN, unix.CAP_PERFMON}
	for name, has := range map[string][]uint{"none": nil, "no CAP_BPF": all[1:], "no CAP_NET_ADMIN": {all[0], all[2]}, "no CAP_PERFMON": all[:2]} {
		t.Run(name, func(t *testing.T) {
			with(t, func() {
				_, err := Attach(t.Context(), s.opts)
				assert.ErrorIs(t, err, enforce.ErrNotSupported)
				assert.EqualError(t, err, "cgroup BPF for this user is not supported on this system: operation not permitted: "+needs)
				cs := Probe()
				assert.EqualError(t, enforce.Missing(cs, enforce.CommandAttach), "programs for cgroups is not supported on this system: load program: operation not permitted")
				for _, c := range cs[:2] {
					assert.Equal(t, needs, c.Remedy, c.Name)
				}
			}, has...)
		})
	}
	with(t, func() {
		a, err := Attach(t.Context(), s.opts)
		if assert.NoError(t, err) {
			assert.NoError(t, a.Close())
		}
	}, all...)
	require.NoError(t, s.attach(t).Close(), "others still may")
}
