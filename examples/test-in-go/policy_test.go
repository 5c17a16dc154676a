package testingo

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/sdk/go/callouttest"
)

func TestPolicy(t *testing.T) {
	p := callouttest.Open(t, "policy.yaml")
	p.Test(t,
		callouttest.Case{Name: "web goes to the proxy, and from there on",
			Connection: callouttest.Connection{Program: "/usr/bin/curl", To: "198.51.100.7:80"},
			Want:       callouttest.Want{Action: callouttest.Redirect, Destination: "proxy:onward", Filter: "web"},
			Then: []callouttest.Step{{WithRecords: true, Connection: callouttest.Connection{Program: "/usr/bin/calloutd", PID: 1},
				Want: callouttest.Want{Action: callouttest.Permit, Destination: "198.51.100.7:80", State: "redirected-by-self"}}}},
		callouttest.Case{Name: "web of a dual-stack socket does, too",
			Connection: callouttest.Connection{To: "[::ffff:198.51.100.7]:80"},
			Want:       callouttest.Want{Action: callouttest.Redirect, Destination: "proxy:onward", Filter: "web"}},
		callouttest.Case{Name: "web at another port does not",
			Connection: callouttest.Connection{To: "198.51.100.7:8080"},
			Want:       callouttest.Want{Action: callouttest.Permit}},
		callouttest.Case{Name: "the mail program may send mail",
			Connection: callouttest.Connection{Program: "/usr/sbin/sendmail", To: "192.0.2.7:25"},
			Want:       callouttest.Want{Action: callouttest.Permit}},
	)
	// Many connections for one rule are a loop.
	for _, program := range []string{"/usr/bin/curl", "/usr/bin/python3", "/opt/app/app"} {
		p.Test(t, callouttest.Case{Name: program + " may not",
			Connection: callouttest.Connection{Program: program, To: "192.0.2.7:25"},
			Want:       callouttest.Want{Action: callouttest.Block, Filter: "no mail", Layer: "ALE_AUTH_CONNECT"}})
	}
}

// Filters in code, and a callout that is Go.
func TestFiltersInCode(t *testing.T) {
	weekend := fwps.CalloutFunc(func(_ context.Context, _ *fwps.Call, v *fwps.Verdict) error {
		v.Action, v.Reason = fwp.ActionBlock, "not at the weekend"
		return nil
	})
	p := callouttest.New(t, fwpm.Policy{
		Callouts: []fwpm.Callout{{ID: "weekend", Name: "weekend"}},
		Filters: []fwpm.Filter{{ID: 1, Name: "releases", Layer: fwpm.LayerALEAuthConnectV4, Action: fwp.ActionCalloutTerminating, Callout: "weekend",
			Conditions: []fwpm.Condition{{Field: fwpm.ConditionIPRemotePort, Value: fwp.U16(22)}}}},
	}, map[fwpm.CalloutID]fwps.Callout{"weekend": weekend})
	p.Test(t, callouttest.Case{Name: "no release", Connection: callouttest.Connection{To: "192.0.2.1:22"},
		Want: callouttest.Want{Action: callouttest.Block, Callout: "weekend", Reason: "weekend"}})
}

// What a failure looks like.
func TestAFailureSaysWhy(t *testing.T) {
	p := callouttest.Open(t, "policy.yaml")
	err := p.Check(t.Context(), callouttest.Case{Connection: callouttest.Connection{To: "192.0.2.7:25"}, Want: callouttest.Want{Action: callouttest.Permit}})
	require.ErrorContains(t, err, "action: want permit, got block\n")
	require.ErrorContains(t, err, `filter 3 "no mail" (policy.yaml:15) in universal: block, hard`)
}
