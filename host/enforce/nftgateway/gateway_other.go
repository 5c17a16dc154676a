//go:build !linux

package nftgateway

import (
	"context"
	"runtime"

	"github.com/calloutd/calloutd/host/enforce"
)

// A Gateway decides connections until it is closed. There are none here.
type Gateway struct{}

// Start is not supported here: it returns an *enforce.UnsupportedError.
func Start(_ context.Context, opts Options) (*Gateway, error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	return nil, &enforce.UnsupportedError{Name: "nftables table " + opts.tableName(), Why: "this backend is not built for " + runtime.GOOS + "/" + runtime.GOARCH}
}

// Datagrams are none.
func (*Gateway) Datagrams() enforce.DatagramStats { return enforce.DatagramStats{} }

// Connections are none.
func (*Gateway) Connections() enforce.ConnectionStats { return enforce.ConnectionStats{} }

// State is that of none.
func (*Gateway) State() State { return State{} }

// Close does nothing.
func (*Gateway) Close() error { return nil }

// Remove does nothing.
func Remove(string) error { return nil }

// Probe asks the running kernel for what Start needs.
func Probe() []enforce.Capability {
	return []enforce.Capability{{Name: "nftables", Command: enforce.CommandGateway, Need: enforce.Required, MinimumKernel: "5.12",
		Detail: "sends connections to calloutd", Why: "only Linux has it"}}
}
