//go:build linux && (amd64 || arm64)

package cgroupbpf

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/enforce/cgroupbpf/bpf"
	"github.com/calloutd/calloutd/host/enforce/enforcetest"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// Without descriptors nothing goes on undecided. A connection that cannot be carried for
// want of one is reset, with the reason; one that cannot be accepted waits.
func TestWithoutDescriptors(t *testing.T) {
	origin := greet(t, "tcp4", "127.0.0.1:0", "origin", nil).String()
	restore := func() {}
	defer func() { restore() }()
	var once sync.Once
	permit := fwps.CalloutFunc(func(_ context.Context, _ *fwps.Call, v *fwps.Verdict) error {
		once.Do(func() { restore = enforcetest.WithoutDescriptors() }) // It is accepted, and not yet carried.
		v.Action = fwp.ActionPermit
		return nil
	})
	s := newSite(t, &fwpm.Policy{Callouts: []fwpm.Callout{{ID: "c"}}, Filters: askAll()}, permit)
	var wants enforcetest.Wants
	s.opts.Logf = wants.Logf
	defer s.attach(t).Close()
	first, second := s.start(t, 0, "stdin/", "tcp/"+origin), s.start(t, 0, "stdin/", "tcp/"+origin)

	require.Equal(t, []string{"told", "ECONNRESET"}, first.end())
	denials, _ := s.told()
	require.Len(t, denials, 1)
	require.Contains(t, denials[0], "too many open files")
	restore()

	restore = enforcetest.WithoutDescriptors()
	second.stdin.Close()
	wants.Patient(t)
	restore()
	require.Equal(t, []string{"told", "origin from " + origin}, second.end())
}

// Drain lets a connection end that the kernel has sent here and nobody has accepted yet.
func TestDrainWaitsForWhatIsNotYetAccepted(t *testing.T) {
	origin := greet(t, "tcp4", "127.0.0.1:0", "origin", nil).String()
	s := newSite(t, &fwpm.Policy{Callouts: []fwpm.Callout{{ID: "c"}}, Filters: askAll()}, fwps.CalloutFunc(func(_ context.Context, _ *fwps.Call, v *fwps.Verdict) error {
		v.Action = fwp.ActionPermit
		return nil
	}))
	a := s.attach(t)
	defer a.Close()
	h := s.start(t, 0, "stdin/", "tcp/"+origin)
	restore := enforcetest.WithoutDescriptors()
	defer func() { restore() }()
	h.stdin.Close()
	require.Eventually(t, a.awaited, time.Minute, time.Millisecond)
	drained := make(chan error, 1)
	go func() { drained <- a.Drain(t.Context()) }()
	select {
	case <-drained:
		t.Fatal("it does not wait")
	case <-time.After(200 * time.Millisecond):
	}
	restore()
	require.Contains(t, strings.Join(h.end(), "\n"), "told\norigin from ") // Without the programs it may see that it is connected to this process.
	require.NoError(t, <-drained)
}

// The record of a connection that a full queue lost waits for nobody.
func TestDrainDoesNotWaitForWhatIsLost(t *testing.T) {
	s := newSite(t, &fwpm.Policy{}, nil)
	a := s.attach(t)
	defer a.Close()
	require.NoError(t, a.objs.Waiting.Put(bpf.RedirectSource{Port: 1}, bpf.RedirectRecord{}))
	require.True(t, a.awaited())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, errors.Join(a.Drain(ctx), ctx.Err()))
}
