package ale_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/netip"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect/memstore"
)

// A carried connection is one that a proxy was given, and makes.
type carried struct {
	in  fwps.Incoming
	out net.Conn
}

func (c *carried) Incoming() fwps.Incoming { return c.in }

func (c *carried) Connect(ctx context.Context, to netip.AddrPort) (netip.AddrPort, error) {
	out, err := new(net.Dialer).DialContext(ctx, "tcp", to.String())
	if err != nil {
		return netip.AddrPort{}, err
	}
	c.out = out
	return out.LocalAddr().(*net.TCPAddr).AddrPort(), nil
}

// A proxy asks for each connection before it makes it. What it knows of the client is the
// AppID, which filters compare with ALE_APP_ID; the name that the client asked for is
// PEER_NAME.
func ExampleEnforcer_Connect() {
	ctx := context.Background()
	engine := host.New(host.Options{})
	if err := engine.Update(func(p *fwpm.Policy) error {
		p.Filters = []fwpm.Filter{{ID: 1, Name: "no mail", Layer: fwpm.LayerALEAuthConnectV4, Action: fwp.ActionBlock,
			Conditions: []fwpm.Condition{{Field: fwpm.ConditionIPRemotePort, Value: fwp.U16(25)}}}}
		return nil
	}); err != nil {
		log.Fatal(err)
	}
	enforcer := ale.New(ale.Options{Classifier: engine, Store: memstore.New(0)})
	origin, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer origin.Close()

	for _, meant := range []string{origin.Addr().String(), "192.0.2.1:25"} {
		c := &carried{in: fwps.Incoming{Protocol: fwps.ProtocolTCP, AppID: "client 10.0.0.7", Remote: netip.MustParseAddrPort(meant),
			Other: map[fwpm.ConditionID]fwp.Value{fwpm.ConditionPeerName: fwp.Blob("origin.example")}}}
		flow, err := enforcer.Connect(ctx, c)
		var blocked *ale.BlockedError
		switch {
		case errors.As(err, &blocked):
			fmt.Printf("blocked at %v by filter %q\n", blocked.Layer, blocked.Name)
		case err != nil:
			log.Fatal(err)
		default:
			fmt.Println("connected, redirected:", flow.Redirected)
			// What is sent goes on through c.out. Another policy may not allow it any more,
			// which costs a comparison to ask.
			if err := flow.Reauthorize(ctx); err != nil {
				log.Fatal(err)
			}
			c.out.Close()
			flow.Close()
		}
	}
	// Output:
	// connected, redirected: false
	// blocked at ALE_AUTH_CONNECT_V4 by filter "no mail"
}
