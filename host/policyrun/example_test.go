package policyrun_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"

	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/policyrun"
)

// A service whose connections a policy file decides.
func Example() {
	ctx := context.Background()
	cache, err := os.UserCacheDir()
	if err != nil {
		log.Fatal(err)
	}
	r := policyrun.New(policyrun.Options{
		CacheDir: filepath.Join(cache, "calloutd", "wasm"), // Compiled once, not at each start.
		OnDecision: func(_ *policyrun.Policy, in *fwps.Incoming, d *fwps.Decision) {
			if s := d.Decider(); s != nil && s.Redirected {
				fmt.Printf("%v: filter %q asked callout %s\n", in.Layer, s.Name, s.Callout)
			}
		},
	})
	defer r.Close()
	if err := r.Load(ctx, "../../examples/quickstart/policy.yaml"); err != nil {
		log.Fatal(err)
	}
	dialer, err := r.Dialer()
	if err != nil {
		log.Fatal(err)
	}
	web := http.Client{Transport: &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}}
	answer, err := web.Get("http://198.51.100.7/")
	if err != nil {
		log.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(regexp.MustCompile(`"original_destination":"[^"]*"`).FindString(string(body)))

	// A policy that is wrong changes nothing.
	err = r.Load(ctx, "testdata/wrong.yaml")
	fmt.Println(err)
	fmt.Println("in force:", r.Policy().Path)
	// Output:
	// ALE_CONNECT_REDIRECT_V4: filter "documentation web to the proxy" asked callout proxy-redirect
	// "original_destination":"198.51.100.7:80"
	// testdata/wrong.yaml:2:28: layer: expected a layer, found "ALE_AUTH_CONECT" (did you mean "ALE_AUTH_CONNECT"?)
	// in force: ../../examples/quickstart/policy.yaml
}

// Where a connection would go, without one.
func ExampleDescribe() {
	p, err := policyrun.Describe(context.Background(), "../../examples/conditions/policy.yaml", policyrun.Description{})
	if err != nil {
		log.Fatal(err)
	}
	defer p.Close()
	in := fwps.Incoming{Layer: fwpm.LayerALEAuthConnectV4, AppID: "/usr/bin/mail", Protocol: fwps.ProtocolTCP, Remote: netip.MustParseAddrPort("192.0.2.7:25")}
	var d fwps.Decision
	p.Engine.Classify(context.Background(), &in, &d)
	fmt.Printf("%v by %q (%s)\n", d.Action, d.Decider().Name, p.File.Place(d.Decider().Filter))
	// Output: block by "no mail but by the mail program" (../../examples/conditions/policy.yaml:13)
}
