//go:build !linux || (!amd64 && !arm64)

package cgroupbpf

import (
	"context"
	"runtime"

	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/fwpm"
)

// An Attachment is a cgroup whose connections are decided. There are none here.
type Attachment struct{}

// Attach is not supported here: it returns an *enforce.UnsupportedError.
func Attach(context.Context, Options) (*Attachment, error) {
	return nil, &enforce.UnsupportedError{Name: "cgroup BPF", Why: "this backend is not built for " + runtime.GOOS + "/" + runtime.GOARCH}
}

// Update does nothing.
func (*Attachment) Update(*fwpm.Policy) error { return nil }

// Drain does nothing.
func (*Attachment) Drain(context.Context) error { return nil }

// Datagrams are none.
func (*Attachment) Datagrams() enforce.DatagramStats { return enforce.DatagramStats{} }

// Connections are none.
func (*Attachment) Connections() enforce.ConnectionStats { return enforce.ConnectionStats{} }

// Close does nothing.
func (*Attachment) Close() error { return nil }

// Detach is not supported here: it returns an *enforce.UnsupportedError.
func Detach(cgroup, pinDir string) error {
	_, err := Attach(context.Background(), Options{})
	return err
}

// Probe asks the running kernel for what Attach needs.
func Probe() []enforce.Capability {
	return []enforce.Capability{{Name: "programs for cgroups", Command: enforce.CommandAttach, Need: enforce.Required, MinimumKernel: "5.8",
		Detail: "decides in the kernel", Why: "only Linux on amd64 and arm64 has this backend"}}
}
