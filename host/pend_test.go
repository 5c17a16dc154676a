package host_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// AMB-43: a close has nobody who could give up, so that a callout which never completes it
// holds it ten seconds unless the options say otherwise, and can be unregistered then.
func TestACalloutThatNeverCompletesAClose(t *testing.T) {
	for _, l := range []fwpm.LayerID{fwpm.LayerALEEndpointClosureV4, fwpm.LayerALEEndpointClosureV6} {
		for option, want := range map[time.Duration]time.Duration{0: 10 * time.Second, time.Minute: time.Minute, -1: time.Hour} {
			synctest.Test(t, func(t *testing.T) {
				e := host.New(host.Options{PendTimeout: option})
				s := open(t, e, host.SessionOptions{})
				declare(t, s, "never")
				f := calling("never")
				f.Layer = l
				add(t, s, f)
				var held *fwps.PendedClassify
				_, unregister, err := e.RegisterCallout("never", fwps.CalloutFunc(func(_ context.Context, c *fwps.Call, _ *fwps.Verdict) (err error) {
					held, err = c.PendClassify()
					if p := held; option < 0 { // No limit.
						time.AfterFunc(want, func() { p.Complete(&fwps.Verdict{Action: permit}) })
					}
					return err
				}))
				require.NoError(t, err)
				began := time.Now()
				var d fwps.Decision
				in := incoming(l)
				e.Classify(t.Context(), &in, &d)
				require.Equal(t, want, time.Since(began))
				if option >= 0 {
					require.Contains(t, d.Decider().Why, "held the classification longer than "+want.String())
					require.Equal(t, fwp.ActionBlock, d.Action)
				}
				held.Complete(&fwps.Verdict{Action: permit}) // Too late.
				require.NoError(t, unregister())
			})
		}
	}
}
