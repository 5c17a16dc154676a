//go:build linux && (amd64 || arm64)

package cgroupbpf

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/enforce/enforcetest"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// What was noted about a connection that nobody has accepted, here since calloutd went, is
// not about another program's that comes from the same port and was not sent here.
func TestRecordsAreOfTheirConnection(t *testing.T) {
	const to = "198.51.100.7:80"
	from := fmt.Sprintf("tcp@127.64.%d.%d:40000/", byte(os.Getpid()>>8), byte(os.Getpid())) // Nobody else's, also not an earlier run's.
	proxy := greet(t, "tcp4", "127.0.0.1:0", "proxy", nil)
	callout := fwps.CalloutFunc(func(_ context.Context, _ *fwps.Call, v *fwps.Verdict) error {
		v.Action, v.Redirect, v.To, v.TargetPID = fwp.ActionPermit, true, proxy, uint32(os.Getpid())
		return nil
	})
	s := pinned(t, &fwpm.Policy{Callouts: []fwpm.Callout{{ID: "c"}}, Filters: []fwpm.Filter{{ID: 1, Name: "to the proxy", Layer: fwpm.LayerALEConnectRedirectV4,
		Action: fwp.ActionCalloutUnknown, Callout: "c", Conditions: []fwpm.Condition{condition(fwpm.ConditionIPRemoteAddress, net198)}}}}, callout)
	var wants enforcetest.Wants
	s.opts.Logf = wants.Logf
	x := s.attach(t)
	require.Equal(t, []string{"proxy from " + to}, s.run(t, "tcp/"+to))

	first := s.start(t, 0, "stdin/", from+to)
	restore := enforcetest.WithoutDescriptors()
	defer func() { restore() }()
	first.stdin.Close()
	wants.Patient(t)
	_ = x.Close() // For want of descriptors the route and the rule of IPv6 stay, until the next one comes.
	restore()
	require.Equal(t, []string{"told", "ECONNRESET"}, first.end())

	x = s.attach(t)
	defer func() { require.NoError(t, Detach(s.cgroup, s.opts.PinDir)) }()
	defer x.Close()
	require.Equal(t, []string{"ECONNRESET"}, s.run(t, from+own(x).listen[ip4].Addr().String()))
}
