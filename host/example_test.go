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

// A callout in Go sends connections to a proxy; the decision has where they go now.
func ExampleEngine_RegisterCallout() {
	e := host.New(host.Options{})
	if err := e.Update(func(p *fwpm.Policy) error {
		p.Callouts = []fwpm.Callout{{ID: "to proxy", Name: "to proxy"}}
		p.Filters = []fwpm.Filter{{ID: 1, Name: "web", Layer: fwpm.LayerALEConnectRedirectV4, Action: fwp.ActionCalloutTerminating, Callout: "to proxy",
			Conditions: []fwpm.Condition{{Field: fwpm.ConditionIPRemotePort, Value: fwp.U16(80)}}}}
		return nil
	}); err != nil {
		fmt.Println(err)
		return
	}
	_, unregister, err := e.RegisterCallout("to proxy", fwps.CalloutFunc(func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
		v.Action, v.Redirect, v.To, v.TargetPID = fwp.ActionPermit, true, netip.MustParseAddrPort("127.0.0.1:8080"), 4711
		v.Record = append(v.Record, "mine"...) // given back when the proxy's own connection comes by
		return nil
	}))
	if err != nil {
		fmt.Println(err)
		return
	}
	in := fwps.Incoming{Layer: fwpm.LayerALEConnectRedirectV4, Protocol: fwps.ProtocolTCP, Remote: netip.MustParseAddrPort("198.51.100.7:80")}
	d := new(fwps.Decision)
	e.Classify(context.Background(), &in, d)
	fmt.Println(d.Action, d.Connect.Remote, d.Decider().Name)

	// Without its callout the filter blocks: what cannot be asked is not permitted.
	fmt.Println(unregister())
	e.Classify(context.Background(), &in, d)
	fmt.Println(d.Action, d.Decider().Why)
	// Output:
	// permit 127.0.0.1:8080 web
	// <nil>
	// block the callout is not registered
}

// A monitor hears of what is blocked, and by which filter.
func ExampleSession_NetEventSubscribe() {
	e := host.New(host.Options{})
	s, err := e.Open(host.SessionOptions{Name: "monitor", Dynamic: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	events := make(chan fwpm.NetEvent, 100)
	if _, err := s.NetEventSubscribe(func(ev fwpm.NetEvent) {
		select {
		case events <- ev:
		default: // The connection waits for us: what is too much is lost.
		}
	}); err != nil {
		fmt.Println(err)
		return
	}
	if _, err := s.FilterAdd(fwpm.Filter{Name: "no mail", Layer: fwpm.LayerALEAuthConnectV4, Action: fwp.ActionBlock}); err != nil {
		fmt.Println(err)
		return
	}
	in := fwps.Incoming{Layer: fwpm.LayerALEAuthConnectV4, Protocol: fwps.ProtocolTCP, Remote: netip.MustParseAddrPort("198.51.100.7:25"), AppID: "/usr/bin/mail"}
	e.Classify(context.Background(), &in, new(fwps.Decision))
	ev := <-events
	fmt.Println(ev.Type, ev.AppID, ev.Remote, "filter", ev.Filter)
	// Output:
	// classify-drop /usr/bin/mail 198.51.100.7:25 filter 1
}
