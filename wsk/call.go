package wsk

import (
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// A call is an IRP that WSK has taken for a socket or a client. It ends with
// done, or with finish if it was pended.
type call struct {
	holder interface{ leave() }
	client *Client
	irp    *IRP
}

// done completes the IRP within the call, or later if the provider is told to
// keep clients from relying on that (AMB-04). It returns what the call returns.
func (c call) done(st ntstatus.Status, information int) ntstatus.Status {
	if c.client.provider.late != nil {
		c.irp.pend(nil)
		c.client.provider.late.complete(c, st, information)
		return ntstatus.Pending
	}
	c.end(st, information)
	return st
}

// pend runs op, on its own goroutine unless the caller waits anyway. cancel, which
// may be nil, asks it to end.
func (c call) pend(cancel func(), op func() (ntstatus.Status, int)) ntstatus.Status {
	if c.irp.pend(cancel) {
		c.run(op)
	} else {
		go c.run(op)
	}
	return ntstatus.Pending
}

// run completes the call with what op answers. What panics there is the code of others, such
// as a store: the call is completed too, so that nobody waits for it where one recovers.
func (c call) run(op func() (ntstatus.Status, int)) {
	st, n := ntstatus.Unsuccessful, 0
	defer func() { c.finish(st, n) }()
	st, n = op()
}

// ask runs code of others before the call has an answer; if it panics, see run.
func (c call) ask(op func()) {
	answered := false
	defer func() {
		if !answered {
			c.done(ntstatus.Unsuccessful, 0)
		}
	}()
	op()
	answered = true
}

// finish completes an IRP that was pended.
func (c call) finish(st ntstatus.Status, information int) {
	if c.client.provider.late != nil && c.client.provider.late.shuffles {
		c.client.provider.late.complete(c, st, information)
		return
	}
	c.end(st, information)
}

func (c call) end(st ntstatus.Status, information int) {
	c.settle(st, information)
	if t := c.client.tracer.Load(); t != nil {
		t.completes(c.irp, st, information)
	}
	c.irp.complete(st, information)
	c.holder.leave()
}
