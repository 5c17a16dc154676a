// Command smallest is the least that embeds the engine: one filter, one question.
package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

func main() {
	engine := host.New(host.Options{})
	if err := engine.Update(func(p *fwpm.Policy) error {
		p.Filters = []fwpm.Filter{{ID: 1, Name: "no mail", Layer: fwpm.LayerALEAuthConnectV4, Action: fwp.ActionBlock,
			Conditions: []fwpm.Condition{{Field: fwpm.ConditionIPRemotePort, Value: fwp.U16(25)}}}}
		return nil
	}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	in := fwps.Incoming{Layer: fwpm.LayerALEAuthConnectV4, Protocol: fwps.ProtocolTCP, Remote: netip.MustParseAddrPort("192.0.2.1:25")}
	var d fwps.Decision
	engine.Classify(context.Background(), &in, &d)
	fmt.Printf("%s: %s, because of filter %d %q\n", in.Remote, d.Action, d.Decider().Filter, d.Decider().Name)
}
