//go:build linux && (amd64 || arm64)

package cgroupbpf

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce/cgroupbpf/bpf"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// TestAttachOnALink in cmd/calloutd is about links that are known.

const ofLoopback = "[fe80::9%1]:80" // the link 1 is loopback, in every network namespace

func permitting(t *testing.T) *site {
	return newSite(t, &fwpm.Policy{Callouts: []fwpm.Callout{{ID: "c"}}, Filters: askAll()},
		fwps.CalloutFunc(func(_ context.Context, _ *fwps.Call, v *fwps.Verdict) error { v.Action = fwp.ActionPermit; return nil }))
}

// A number of a link is another link's in another network namespace.
func TestLinkOfAnotherNamespaceIsRefused(t *testing.T) {
	s := permitting(t)
	a := s.attach(t)
	defer a.Close()
	h := s.start(t, unix.CLONE_NEWNET, "up/", "patiently/tcp6/"+ofLoopback, "stdin/", "udp6/"+ofLoopback)
	for _, want := range []string{"up", "ECONNRESET"} {
		require.Equal(t, want, h.line())
	}
	require.Eventually(t, func() bool { return len(a.allHomes()) == 2 }, time.Minute, time.Millisecond) // It takes datagrams there, too.
	h.stdin.Close()
	require.Equal(t, []string{"told", "EACCES"}, h.end())
	var denials []string
	require.Eventually(t, func() bool {
		all, asked := s.told()
		denials = slices.DeleteFunc(slices.Clone(all), func(d string) bool { return strings.Contains(d, "was not yet in its network namespace: try again") })
		return len(denials) == 2 && asked == 0
	}, time.Minute, time.Millisecond)
	for _, d := range denials {
		require.Contains(t, d, "its link is in another network namespace than calloutd")
	}
}

// Where programs may not read the kernel's memory nobody knows the link of a connect.
func TestLinkThatTheKernelDoesNotTellIsRefused(t *testing.T) {
	require.True(t, readsKernel())
	s := permitting(t)
	a, err := attach(t.Context(), s.opts, version{func() (*ebpf.CollectionSpec, error) {
		spec, err := bpf.LoadRedirect()
		if err == nil {
			withoutLinks(spec)
		}
		return spec, err
	}, []byte("without links")})
	require.NoError(t, err)
	defer a.Close()
	require.Equal(t, []string{"EACCES"}, s.run(t, "tcp6/"+ofLoopback))
	require.Eventually(t, func() bool { d, _ := s.told(); return len(d) > 0 }, time.Minute, time.Millisecond)
	denials, asked := s.told()
	require.Contains(t, denials[0], "the kernel does not say on which link its address is")
	require.Zero(t, asked)
}
