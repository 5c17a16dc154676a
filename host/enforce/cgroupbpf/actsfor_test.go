//go:build linux && (amd64 || arm64)

package cgroupbpf

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce/cgroupbpf/bpf"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

func init() {
	// acts: connect, and send, for nobody, as a program that is setuid does.
	bypasses["acts"] = func(to netip.AddrPort) string {
		runtime.LockOSThread()
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), nobodyID, ^uintptr(0)); e != 0 {
			return said(e)
		}
		return fmt.Sprint(said(connectTo(socket(unix.AF_INET, unix.SOCK_STREAM, 0), to)), " ",
			said(unix.Sendto(socket(unix.AF_INET, unix.SOCK_DGRAM, 0), []byte("x"), 0, sockaddr(to))))
	}
}

// ALE_USER_ID is for whom a program acts: the effective user, as in the other backends. Who it
// is, the real one, decides only where the kernel does not describe itself.
func TestUserIsForWhomAProgramActs(t *testing.T) {
	for user, want := range map[uint32]string{nobodyID: "EACCES EACCES", 0: "ok ok"} {
		for _, types := range []bool{true, false} {
			t.Run(fmt.Sprint("blocked ", user, " types ", types), func(t *testing.T) {
				s := newSite(t, &fwpm.Policy{Filters: []fwpm.Filter{filter(1, authConnect, fwp.ActionBlock, condition(fwpm.ConditionALEUserID, fwp.Allow(fwp.UserSID(user))))}}, nil)
				a, err := attach(t.Context(), s.opts, version{func() (*ebpf.CollectionSpec, error) {
					spec, err := bpf.LoadRedirect()
					if err == nil && !types {
						withoutTypes(spec)
					}
					return spec, err
				}, []byte(fmt.Sprint("types ", types))})
				require.NoError(t, err)
				defer a.Close()
				to := greet(t, "tcp4", "127.0.0.1:0", "hello", nil)
				got := s.run(t, "acts/"+to.String())
				if !types {
					require.NotEqual(t, []string{want}, got)
					return
				}
				require.Equal(t, []string{want}, got)
			})
		}
	}
}

// A callout is told of the same one.
func TestCalloutHearsForWhomAProgramActs(t *testing.T) {
	users := make(chan uint32, 8)
	s := newSite(t, &fwpm.Policy{Callouts: []fwpm.Callout{{ID: "c"}}, Filters: askAll()},
		fwps.CalloutFunc(func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
			users <- c.In.UserID
			v.Action = fwp.ActionBlock
			return nil
		}))
	defer s.attach(t).Close()
	s.run(t, "acts/192.0.2.1:9")
	require.EqualValues(t, nobodyID, <-users)
	require.EqualValues(t, nobodyID, <-users)
}
