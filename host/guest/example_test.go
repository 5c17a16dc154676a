package guest_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/netip"
	"os"
	"time"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/guest"
)

// A module is a callout like any other: an engine asks it where a filter says so.
func Example() {
	ctx := context.Background()
	wasm, err := os.ReadFile("testdata/good.wasm") // blocks port 2, and says why
	if err != nil {
		log.Fatal(err)
	}
	runtime, err := guest.NewRuntime(ctx, guest.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer runtime.Close(ctx)
	module, err := runtime.Load(ctx, "good", wasm, guest.ModuleOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer module.Close(ctx)

	engine := host.New(host.Options{})
	if err := engine.Update(func(p *fwpm.Policy) error {
		p.Callouts = []fwpm.Callout{{ID: "good", Name: "a module"}}
		p.Filters = []fwpm.Filter{{ID: 1, Name: "ask it", Layer: fwpm.LayerALEAuthConnectV4, Action: fwp.ActionCalloutTerminating, Callout: "good"}}
		return nil
	}); err != nil {
		log.Fatal(err)
	}
	_, unregister, err := engine.RegisterCallout("good", module)
	if err != nil {
		log.Fatal(err)
	}
	defer unregister()

	var d fwps.Decision
	for _, to := range []string{"198.51.100.7:1", "198.51.100.7:2"} {
		in := fwps.Incoming{Layer: fwpm.LayerALEAuthConnectV4, Protocol: fwps.ProtocolTCP, Remote: netip.MustParseAddrPort(to)}
		engine.Classify(ctx, &in, &d)
		fmt.Printf("%s: %v %q\n", to, d.Action, d.Decider().Why)
	}
	fmt.Println("decisions:", module.Stats().Decisions)
	// Output:
	// 198.51.100.7:1: permit ""
	// 198.51.100.7:2: block "no such place"
	// decisions: 2
}

// A module of somebody else's cannot take this process its time or memory while it is
// compiled. The main function of this program, here that of the tests, begins with
// guest.CompileChild().
func ExampleCompileChild() {
	ctx := context.Background()
	runtime, err := guest.NewRuntime(ctx, guest.Options{CompileApart: true, CompileTimeout: time.Second})
	if err != nil {
		log.Fatal(err)
	}
	defer runtime.Close(ctx)
	_, err = runtime.Load(ctx, "hostile", slow(40000), guest.ModuleOptions{})
	fmt.Println(errors.Is(err, guest.ErrCompileTime))
	// Output:
	// true
}

// Before a module is trusted it can be looked into: what it asks for, and whether it
// would be refused.
func ExampleInspect() {
	for _, name := range []string{"host", "requires"} {
		wasm, err := os.ReadFile("testdata/" + name + ".wasm")
		if err != nil {
			log.Fatal(err)
		}
		r, err := guest.Inspect(context.Background(), wasm, nil, guest.Options{})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(name, "requires", r.Required, "and is refused:", r.Refused != nil)
	}
	// Output:
	// host requires [log] and is refused: false
	// requires requires [kv bit 20] and is refused: true
}

// A module that fails is an error, and the engine blocks: its instance is thrown away, and
// the next decision has another one.
func ExampleTrapError() {
	ctx := context.Background()
	wasm, err := os.ReadFile("testdata/bad.wasm") // traps at port 12
	if err != nil {
		log.Fatal(err)
	}
	runtime, err := guest.NewRuntime(ctx, guest.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer runtime.Close(ctx)
	module, err := runtime.Load(ctx, "bad", wasm, guest.ModuleOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer module.Close(ctx)
	var v fwps.Verdict
	err = module.Classify(ctx, &fwps.Call{In: &fwps.Incoming{Remote: netip.MustParseAddrPort("198.51.100.7:12")}}, &v)
	var trap *guest.TrapError
	fmt.Println(errors.As(err, &trap), module.Stats().Failures)
	// Output:
	// true 1
}
