package policytrace_test

import (
	"context"
	"fmt"
	"log"
	"net/netip"

	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/policyrun"
	"github.com/calloutd/calloutd/host/policytrace"
)

// What a policy says of one connection, for people.
func Example() {
	ctx := context.Background()
	p, err := policyrun.Describe(ctx, "../../examples/conditions/policy.yaml", policyrun.Description{})
	if err != nil {
		log.Fatal(err)
	}
	defer p.Close()
	world := policytrace.World(p)
	said := world.Record()
	out, err := world.Decide(ctx, said, fwps.Incoming{AppID: "/usr/bin/make", ProcessID: 7, Protocol: fwps.ProtocolTCP, Remote: netip.MustParseAddrPort("192.0.2.7:25")})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(out.Action)
	fmt.Print(said.Trace())
	// Output:
	// block
	// ALE_BIND_REDIRECT_V4       /usr/bin/make[7] at 0.0.0.0:0: permit
	//     no filter matches (ARB-09)
	// ALE_RESOURCE_ASSIGNMENT_V4 /usr/bin/make[7] at 0.0.0.0:0: permit
	//     no filter matches (ARB-09)
	// ALE_CONNECT_REDIRECT_V4    /usr/bin/make[7] -> 192.0.2.7:25: permit
	//     no filter matches (ARB-09)
	// ALE_AUTH_CONNECT_V4        /usr/bin/make[7] -> 192.0.2.7:25: block
	//     filter 1 "no mail but by the mail program" (../../examples/conditions/policy.yaml:13) in must: block, hard
	// ALE_ENDPOINT_CLOSURE_V4    /usr/bin/make[7] -> 192.0.2.7:25: permit
	//     no filter matches (ARB-09)
	// /usr/bin/make[7] to 192.0.2.7:25 blocked at ALE_AUTH_CONNECT_V4 by filter 1 "no mail but by the mail program" (../../examples/conditions/policy.yaml:13): the policy blocks it
}
