package callouttest_test

import (
	"testing"

	"github.com/calloutd/calloutd/sdk/go/callouttest"
)

// What stands in a TestXxx function of your own.
func ExamplePolicy_Test() {
	test := func(t *testing.T) {
		p := callouttest.Open(t, "policy.yaml")
		p.Test(t,
			callouttest.Case{Name: "web goes to the proxy", Connection: callouttest.Connection{Program: "/usr/bin/curl", To: "198.51.100.7:80"},
				Want: callouttest.Want{Action: callouttest.Redirect, Destination: "proxy:inspect", Filter: "documentation web to the proxy"}},
			callouttest.Case{Name: "but nothing else", Connection: callouttest.Connection{To: "198.51.100.7:25"},
				Want: callouttest.Want{Action: callouttest.Permit, Filter: callouttest.None}},
		)
	}
	_ = test
}
