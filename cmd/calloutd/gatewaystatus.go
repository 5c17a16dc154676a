package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/calloutd/calloutd/cmd/calloutd/internal/control"
	"github.com/calloutd/calloutd/host/enforce/nftgateway"
	"github.com/calloutd/calloutd/host/policyrun"
)

// A reporter is a gateway as its control socket tells of it.
type reporter struct {
	runner  *policyrun.Runner
	gateway *nftgateway.Gateway
	policy  control.Policy
}

// serve answers on a listener until ctx ends. The function waits for that.
func (r *reporter) serve(ctx context.Context, l net.Listener, logf func(format string, args ...any)) (wait func()) {
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := control.Serve(ctx, l, r); err != nil {
			logf("--control: nobody is answered any more: %v", err)
		}
	})
	return wg.Wait
}

// Status implements control.Daemon.
func (r *reporter) Status() control.Status {
	s := statusOf(r.runner, "ready", r.policy.Since, r.policy)
	state, connections, datagrams := r.gateway.State(), r.gateway.Connections(), r.gateway.Datagrams()
	s.Gateway, s.Connections = &state, &connections
	if state.Transparent {
		s.Datagrams = &datagrams
	}
	return s
}

// Health is nil while what comes in is decided.
func (r *reporter) Health() error {
	if s := r.gateway.State(); !s.Rules {
		return fmt.Errorf("rules of the table %s are away: nothing goes on until they are back", s.Table)
	}
	return nil
}

// Reload implements control.Daemon.
func (r *reporter) Reload(context.Context) error {
	return errors.New("a gateway keeps the policy that it began with: end it and start it again for another one")
}
