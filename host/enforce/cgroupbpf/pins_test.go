//go:build linux && (amd64 || arm64)

package cgroupbpf

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce/cgroupbpf/bpf"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// pinned is a site with a BPF file system of its own.
func pinned(t *testing.T, p *fwpm.Policy, callout fwps.Callout) *site {
	s := newSite(t, p, callout)
	s.pin(t)
	return s
}

func (s *site) pin(t *testing.T) {
	s.opts.PinDir = t.TempDir()
	require.NoError(t, unix.Mount("bpf", s.opts.PinDir, "bpf", 0, ""))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(s.opts.PinDir, 0)) })
}

// left are the folders that are pinned.
func (s *site) left(t *testing.T) []string {
	dirs, err := filepath.Glob(filepath.Join(s.opts.PinDir, "calloutd-*"))
	require.NoError(t, err)
	return dirs
}

// inForce is how many programs each hook has.
func (s *site) inForce(t *testing.T) (n []int) {
	dir, err := os.Open(s.cgroup)
	require.NoError(t, err)
	defer dir.Close()
	for _, h := range new(Attachment).hooks() {
		r, err := link.QueryPrograms(link.QueryOptions{Target: int(dir.Fd()), Attach: h.at})
		require.NoError(t, err)
		n = append(n, len(r.Programs))
	}
	return n
}

func each(n int) (all []int) {
	for range new(Attachment).hooks() {
		all = append(all, n)
	}
	return all
}

// older is a kernel part whose maps are others.
var older = version{func() (*ebpf.CollectionSpec, error) {
	spec, err := bpf.LoadRedirect()
	if err == nil {
		spec.Maps[bpf.RedirectMapFlows].MaxEntries /= 2
		spec.Maps[bpf.RedirectMapWaiting].MaxEntries /= 2
	}
	return spec, err
}, []byte("older")}

// Pinned programs fail closed while nobody answers, and the next process takes
// them over. Who detaches them needs no policy.
func TestPinned(t *testing.T) {
	origin := greet(t, "tcp4", "127.0.0.1:0", "origin", nil)
	permit := fwps.CalloutFunc(func(_ context.Context, _ *fwps.Call, v *fwps.Verdict) error { v.Action = fwp.ActionPermit; return nil })
	s := pinned(t, &fwpm.Policy{Callouts: []fwpm.Callout{{ID: "c"}}, Filters: askAll()}, permit)
	a := s.attach(t)
	want := []string{"origin from " + origin.String()}
	require.Equal(t, want, s.run(t, "tcp/"+origin.String()))
	require.NoError(t, a.Close())
	require.Equal(t, []string{"EACCES"}, s.run(t, "tcp/"+origin.String()), "nobody answers")
	a = s.attach(t)
	require.Equal(t, want, s.run(t, "tcp/"+origin.String()))
	require.Equal(t, each(1), s.inForce(t))
	require.NoError(t, a.Close())
	require.NoError(t, Detach(s.cgroup, s.opts.PinDir))
	require.Equal(t, want, s.run(t, "tcp/"+origin.String()))
	require.Equal(t, each(0), s.inForce(t))
	require.Empty(t, s.left(t))
	require.ErrorContains(t, Detach(s.cgroup, s.opts.PinDir), "nothing of calloutd is pinned in "+s.opts.PinDir+" for "+s.cgroup)
}

// What is no BPF file system keeps nothing, and is left as it was.
func TestOnlyBPFFileSystemsKeepPins(t *testing.T) {
	opts := pinned(t, new(fwpm.Policy), nil).opts
	opts.PinDir = t.TempDir()
	_, err := Attach(t.Context(), opts)
	require.EqualError(t, err, "cgroupbpf: "+opts.PinDir+" is in no BPF file system, which is what keeps programs: `mount -t bpf bpf /sys/fs/bpf` mounts one")
	left, err := os.ReadDir(opts.PinDir)
	require.NoError(t, err)
	require.Empty(t, left)
}

// Who detaches does so although a daemon is there that has the links open.
func TestDetachWhileAttached(t *testing.T) {
	s := pinned(t, &fwpm.Policy{Filters: []fwpm.Filter{filter(1, authConnect, fwp.ActionBlock)}}, nil)
	a := s.attach(t)
	defer a.Close()
	origin := greet(t, "tcp4", "127.0.0.1:0", "origin", nil).String()
	require.Equal(t, []string{"EACCES"}, s.run(t, "tcp/"+origin))
	require.NoError(t, Detach(s.cgroup, s.opts.PinDir))
	require.Equal(t, []string{"origin from " + origin}, s.run(t, "tcp/"+origin))
}

// What another version pinned is replaced, whichever is newer, and there is no moment
// in which what both block goes through.
func TestPinsOfAnotherVersion(t *testing.T) {
	origin, forbidden := greet(t, "tcp4", "127.0.0.1:0", "origin", nil), greet(t, "tcp4", "127.0.0.1:0", "forbidden", nil)
	both := filter(1, authConnect, fwp.ActionBlock, port(forbidden.Port()))
	open := &fwpm.Policy{Filters: []fwpm.Filter{both}}
	closed := &fwpm.Policy{Filters: []fwpm.Filter{both, filter(2, authConnect, fwp.ActionBlock, port(origin.Port()))}}
	s := pinned(t, closed, nil)
	var h *helper
	for i, v := range []version{older, this, older, this} {
		s.opts.Policy = []*fwpm.Policy{closed, open}[i%2]
		want := []string{"EACCES", "origin from " + origin.String()}[i%2]
		a, err := attach(t.Context(), s.opts, v)
		require.NoError(t, err)
		require.Equal(t, []string{want}, s.run(t, "tcp/"+origin.String()))
		require.NoError(t, a.Close())
		require.Equal(t, []string{want}, s.run(t, "tcp/"+origin.String()), "until the next")
		require.Equal(t, each(1), s.inForce(t))
		require.Len(t, s.left(t), 1)
		if i == 0 {
			h = s.start(t, 0, "hammer/"+forbidden.String())
		}
	}
	var tries, through int
	_, err := fmt.Sscan(h.end()[0], &tries, &through)
	require.NoError(t, err)
	require.NotZero(t, tries)
	require.Zero(t, through)
	require.NoError(t, Detach(s.cgroup, s.opts.PinDir))
}

// A process that ended while it took over has left links of two versions.
func TestPinsOfTwoVersions(t *testing.T) {
	origin := greet(t, "tcp4", "127.0.0.1:0", "origin", nil).String()
	s := pinned(t, &fwpm.Policy{Filters: []fwpm.Filter{filter(1, authConnect, fwp.ActionBlock)}}, nil)
	a, err := attach(t.Context(), s.opts, older)
	require.NoError(t, err)
	next := &Attachment{opts: s.opts, version: this}
	require.NoError(t, os.Mkdir(next.pinDir(), 0o700))
	require.NoError(t, os.Rename(filepath.Join(a.pinDir(), "link-connect4"), filepath.Join(next.pinDir(), "link-connect4")))
	require.NoError(t, a.Close())
	a = s.attach(t)
	require.Equal(t, []string{"EACCES"}, s.run(t, "tcp/"+origin))
	require.Equal(t, each(1), s.inForce(t))
	require.Equal(t, []string{a.pinDir()}, s.left(t))
	require.NoError(t, a.Close())
	require.NoError(t, Detach(s.cgroup, s.opts.PinDir))
}

// A cgroup that is made anew has nothing of what is pinned for that which was there.
func TestPinsOfACgroupThatIsGone(t *testing.T) {
	origin := greet(t, "tcp4", "127.0.0.1:0", "origin", nil).String()
	s := pinned(t, &fwpm.Policy{Filters: []fwpm.Filter{filter(1, authConnect, fwp.ActionBlock)}}, nil)
	require.NoError(t, s.attach(t).Close())
	s.remove(t)
	require.NoError(t, os.Mkdir(s.cgroup, 0o755))
	a := s.attach(t)
	require.Equal(t, []string{"EACCES"}, s.run(t, "tcp/"+origin))
	require.Equal(t, each(1), s.inForce(t))
	require.NoError(t, a.Close())
	s.remove(t)
	require.NoError(t, Detach(s.cgroup, s.opts.PinDir))
	require.Empty(t, s.left(t))
	require.NoError(t, os.Mkdir(s.cgroup, 0o755))
}
