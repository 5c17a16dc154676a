package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/internal/sample"
	"github.com/calloutd/calloutd/host/peerbench/plugin"
)

func startGoPlugin(ctx context.Context) (_ *subject, err error) {
	wasm, err := buildGo(ctx, "./guests/go/plugin")
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "peerbench")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "plugin.wasm")
	if err := os.WriteFile(file, wasm, 0o600); err != nil {
		return nil, err
	}
	loader, err := plugin.NewCalloutPlugin(ctx)
	if err != nil {
		return nil, err
	}
	p, err := loader.Load(ctx, file)
	if err != nil {
		return nil, err
	}
	if _, err := p.Configure(ctx, pluginConfig()); err != nil {
		return nil, errors.Join(err, p.Close(ctx))
	}
	return &subject{
		decide: func(c *fwps.Call, v *fwps.Verdict) error {
			remote := c.Connect.Remote.Addr().As16()
			a, err := p.Classify(ctx, &plugin.Request{Protocol: uint32(c.In.Protocol), Port: uint32(c.Connect.Remote.Port()),
				Remote: remote[:], App: c.In.AppID, Pid: c.In.ProcessID, Connection: c.In.EndpointID})
			if err != nil {
				return err
			}
			return pluginVerdict(a, v)
		},
		close: func() { _ = p.Close(ctx) },
	}, nil
}

func pluginVerdict(a *plugin.Verdict, v *fwps.Verdict) error {
	if v.Action = fwp.ActionPermit; !a.Redirect {
		return nil
	}
	to, ok := netip.AddrFromSlice(a.To)
	if !ok {
		return fmt.Errorf("%w: an address of %d bytes", errAnswer, len(a.To))
	}
	v.Redirect, v.To, v.TargetPID, v.Record = true, netip.AddrPortFrom(to, uint16(a.Port)), a.Pid, append(v.Record[:0], a.Record...)
	return nil
}

func pluginConfig() *plugin.Config {
	c := &plugin.Config{Port: uint32(sample.Proxy.Port()), Pid: sample.PID}
	for _, p := range sample.Networks() {
		a := p.Addr().As4()
		c.Networks = append(c.Networks, &plugin.Network{Address: binary.BigEndian.Uint32(a[:]), Mask: ^uint32(0) << (32 - p.Bits())})
	}
	return c
}
