//go:build linux && (amd64 || arm64)

package cgroupbpf

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/enforce/enforcetest"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
)

// A service manager removes the cgroup of a service that has ended, and makes another one at
// the same path when it starts again: that is decided, too.
func TestCgroupThatIsMadeAgain(t *testing.T) {
	for _, pins := range []bool{false, true} {
		for name, above := range map[string]int{"itself": 0, "with what is above": 2} {
			t.Run(name+map[bool]string{true: ", pinned"}[pins], func(t *testing.T) {
				s := newSite(t, &fwpm.Policy{Filters: []fwpm.Filter{filter(1, authConnect, fwp.ActionBlock)}}, nil)
				if pins {
					s.pin(t)
				}
				var told enforcetest.Told
				top := s.cgroup
				s.cgroup = filepath.Join(top, "a", "b")
				s.opts.Cgroup, s.opts.Logf = s.cgroup, told.Logf
				require.NoError(t, os.MkdirAll(s.cgroup, 0o755))
				a := s.attach(t)
				to := greet(t, "tcp4", "127.0.0.1:0", "hello", nil)
				for range 3 {
					require.Equal(t, []string{"EACCES"}, s.run(t, "tcp/"+to.String()))
					for n, dir := 0, s.cgroup; n <= above; n, dir = n+1, filepath.Dir(dir) {
						(&site{cgroup: dir}).remove(t)
					}
					told.Has(t, "was removed: nothing is decided until it is made again")
					for _, dir := range []string{top, filepath.Join(top, "a"), s.cgroup} {
						require.NoError(t, os.MkdirAll(dir, 0o755))
						time.Sleep(20 * time.Millisecond) // It may have looked in between.
					}
					told.Has(t, "was made again, and is decided from now on")
				}
				require.NoError(t, a.Close())
				if pins {
					require.NoError(t, Detach(s.cgroup, s.opts.PinDir))
					require.Empty(t, s.left(t))
				}
				s.remove(t)
				(&site{cgroup: filepath.Dir(s.cgroup)}).remove(t)
				s.cgroup = top
				told.Nothing(t)
			})
		}
	}
}
