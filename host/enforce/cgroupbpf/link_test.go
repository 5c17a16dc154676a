//go:build linux && (amd64 || arm64)

package cgroupbpf

import (
	"context"
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
	defer s.attach(t).Close()
	got := s.start(t, unix.CLONE_NEWNET, "up/", "patiently/tcp6/"+ofLoopback, "udp6/"+ofLoopback).end()
	require.Equal(t, []string{"up", "ECONNRESET", "EACCES"}, got)
	denials, asked := s.told()
	require.Len(t, denials, 2)
	require.Zero(t, asked)
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
