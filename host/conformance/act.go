package conformance

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// act carries the actions out. What it pends is held from its end on.
func (c *scripted) act(r behaviour, call *fwps.Call, v *fwps.Verdict) error {
	a := &acting{c: c, call: call, v: v}
	err := a.all(r)
	if err == nil && a.pended != (hold{}) {
		err = c.w.holds(r.l, c.name, a.pended)
	}
	return err
}

// all carries the actions out, one after the other.
func (a *acting) all(r behaviour) error {
	for _, w := range r.actions {
		k, value, _ := strings.Cut(w, "=")
		if err := a.do(k, value); err != nil {
			return err
		}
	}
	return nil
}

type acting struct {
	c       *scripted
	call    *fwps.Call
	v       *fwps.Verdict
	connect *fwps.ConnectRequest // acquired
	bind    *fwps.BindRequest
	pended  hold
}

func (a *acting) do(k, value string) error {
	v := a.v
	switch k {
	case "permit":
		v.Action = fwp.ActionPermit
	case "block":
		v.Action = fwp.ActionBlock
	case "continue":
		v.Action = fwp.ActionContinue
	case "none":
		v.Action = fwp.ActionNone
	case "invalid":
		v.Action = fwp.ActionCalloutUnknown
	case "nothing":
	case "hard", "soft":
		v.ClearActionRight = k == "hard"
	case "absorb":
		v.Absorb = true
	case "panic":
		panic("scripted panic")
	case "error":
		return errors.New(value)
	case "reason":
		v.Reason = value
	case "redirect", "to":
		v.Redirect, v.To = true, netip.MustParseAddrPort(value)
	case "no-handle":
		v.NoHandle = true
	case "reauthorize":
		v.ReauthorizeIfModifiedByOthers = true
	case "pid", "context", "record", "remote", "port", "local", "handle", "token":
		return a.set(k, value)
	default:
		return a.hold(k, value)
	}
	return nil
}

// set changes a member of the request: of the acquired copy if there is one.
func (a *acting) set(k, value string) error {
	n, _ := strconv.ParseUint(value, 0, 64)
	if a.bind != nil {
		switch k {
		case "local":
			a.bind.Local = netip.MustParseAddrPort(value)
		case "token":
			a.bind.PortReservationToken = n
		}
		return nil
	}
	r := a.connect
	if r == nil {
		switch k {
		case "pid":
			a.v.TargetPID = uint32(n)
		case "context":
			a.v.Context = append(a.v.Context[:0], value...)
		case "record":
			a.v.Record = append(a.v.Record[:0], value...)
		default:
			return fmt.Errorf("%s= needs acquire", k)
		}
		return nil
	}
	switch k {
	case "pid":
		r.LocalRedirectTargetPID = uint32(n)
	case "context":
		r.LocalRedirectContext = append(r.LocalRedirectContext[:0], value...)
	case "record":
		r.Record = append(r.Record[:0], value...)
	case "remote":
		r.Remote = netip.MustParseAddrPort(value)
	case "port":
		r.Remote = netip.AddrPortFrom(r.Remote.Addr(), uint16(n))
	case "local":
		r.Local = netip.MustParseAddrPort(value)
	case "token":
		r.PortReservationToken = n
	case "handle":
		return a.setHandle(r, value)
	}
	return nil
}

// setHandle sets the handle to "own", "none", or one that was created.
func (a *acting) setHandle(r *fwps.ConnectRequest, value string) error {
	h, known := a.c.w.handles[value]
	switch {
	case value == "own":
		h = a.call.RedirectHandle
	case value != "none" && !known:
		return fmt.Errorf("there is no handle %q", value)
	}
	r.LocalRedirectHandle = h
	return nil
}

// hold is what the callout does with the classify handle.
func (a *acting) hold(k, value string) (err error) {
	switch k {
	case "acquire":
		var r *fwps.ConnectRequest
		if r, err = a.call.AcquireConnectRequest(); err == nil {
			a.connect = r
		}
	case "acquire-bind":
		var r *fwps.BindRequest
		if r, err = a.call.AcquireBindRequest(); err == nil {
			a.bind = r
		}
	case "apply", "apply-again":
		var flags fwps.ClassifyFlags
		if a.v.ReauthorizeIfModifiedByOthers {
			flags = fwps.ReauthorizeIfModifiedByOthers
		}
		a.call.ApplyModifiedLayerData(flags)
		a.connect, a.bind = nil, nil
	case "pend":
		var p *fwps.PendedClassify
		if p, err = a.call.PendClassify(); err == nil {
			a.c.w.printf("  %s pends", a.c.name)
			a.pended = hold{classify: p}
		}
	case "pend-operation":
		var p *fwps.PendedOperation
		if p, err = a.call.PendOperation(); err == nil {
			a.c.w.printf("  %s pends", a.c.name)
			a.pended = hold{operation: p}
		}
	case "format-records":
		a.c.w.format(a.c.name, a.call)
	case "remove":
		var pending bool
		if pending, err = a.c.w.engine.FlowRemoveContext(a.call.In.Flow, a.call.In.Layer, fwpm.CalloutID(a.c.name)); err == nil {
			a.c.w.printf("  %s: removed, pending: %v", a.c.name, pending)
		}
	case "associate":
		n, _ := strconv.ParseUint(value, 0, 64)
		err = a.c.w.associate(a.c.name, a.call.In.Flow, a.call.In.Layer, n)
	}
	if err != nil {
		a.c.w.printf("  %s: %s: %s", a.c.name, k, statusOf(err))
	}
	return nil
}
