package policyrun_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os/exec"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/enforce/seccomp"
	"github.com/calloutd/calloutd/host/policyrun"
)

// A command, and all that it starts, under a policy file.
func ExampleRunner_Enforcer() {
	ctx := context.Background()
	r := policyrun.New(policyrun.Options{})
	defer r.Close()
	if err := r.Load(ctx, "../../examples/conditions/policy.yaml"); err != nil {
		log.Fatal(err)
	}
	blocked := func(d enforce.Denial) {
		var by *ale.BlockedError
		if errors.As(d.Err, &by) {
			fmt.Printf("%v: %v, filter %q\n", d.Remote, by.Layer, by.Name)
		}
	}
	state, err := seccomp.Run(ctx, seccomp.Options{ALE: r.Enforcer(), OnBlocked: blocked}, exec.Command("bash", "-c", "exec 3<>/dev/tcp/192.0.2.7/25"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(state)
	// Output:
	// 192.0.2.7:25: ALE_AUTH_CONNECT_V4, filter "no mail but by the mail program"
	// exit status 1
}
