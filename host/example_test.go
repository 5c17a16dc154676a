package host_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// A dynamic session's filters live as long as the session.
func Example() {
	e := host.New(host.Options{})
	s, err := e.Open(host.SessionOptions{Name: "example", Dynamic: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	connect := func() fwp.Action {
		in := fwps.Incoming{Layer: fwpm.LayerALEAuthConnectV4, Protocol: fwps.ProtocolTCP, Remote: netip.MustParseAddrPort("198.51.100.7:25")}
		d := new(fwps.Decision)
		e.Classify(context.Background(), &in, d)
		return d.Action
	}

	id, err := s.FilterAdd(fwpm.Filter{Name: "no mail", Layer: fwpm.LayerALEAuthConnectV4, Action: fwp.ActionBlock,
		Conditions: []fwpm.Condition{{Field: fwpm.ConditionIPRemotePort, Value: fwp.U16(25)}}})
	fmt.Println(id, err, connect())
	_, err = s.FilterAdd(fwpm.Filter{Name: "?", Layer: fwpm.LayerALEAuthConnectV4, Action: fwp.ActionBlock, Sublayer: "none"})
	fmt.Println(err, errors.Is(err, fwp.ErrSublayerNotFound))
	s.Close()
	fmt.Println(connect())
	// Output:
	// 1 <nil> block
	// filter 2: sublayer: sublayer not found true
	// permit
}

// Several changes go live at once, or not at all.
func ExampleSession_Begin() {
	e := host.New(host.Options{})
	s, err := e.Open(host.SessionOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	fmt.Println(s.Begin(0))
	id, err := s.SublayerAdd(fwpm.Sublayer{ID: "mine", Name: "my filters", Weight: 100})
	fmt.Println(id, err, len(e.Policy().Sublayers))
	fmt.Println(s.Commit(), len(e.Policy().Sublayers))
	// Output:
	// <nil>
	// mine <nil> 0
	// <nil> 1
}
