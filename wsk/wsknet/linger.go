package wsknet

import (
	"context"
	"sync"
	"time"

	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// linger is how long a closed connection waits for its peer to close too. To
// close the socket at once would reset the connection (WSK-CLOSE-02), and the
// peer could lose what it has not read.
const linger = 30 * time.Second

// linger closes the socket when the peer has closed its side too, or has not for
// too long; the close then ends the drain. The routines start the close and free the
// IRPs: something pends on the socket until it is closed, and nothing is left then,
// so that its client may deregister meanwhile.
func (c *Conn) linger() {
	drain, end := wsk.AllocateIRP(1), wsk.AllocateIRP(1)
	ctx, cancel := context.WithTimeout(c.cut, linger)
	gone := func() {}
	if c.lingering != nil {
		c.lingering.add(1)
		gone = func() { c.lingering.add(-1) }
	}
	end.SetCompletionRoutine(func(*wsk.IRP, any) ntstatus.Status {
		end.Free()
		gone()
		return ntstatus.MoreProcessingRequired
	}, nil, wsk.InvokeAlways)

	var mu sync.Mutex // held while the close begins, so that the drain does not end before
	closing, stop := false, func() bool { return false }
	finish := func() {
		mu.Lock()
		defer mu.Unlock()
		if !closing {
			closing = true
			stop()
			c.s.CloseSocket(end)
		}
	}
	drain.SetCompletionRoutine(func(*wsk.IRP, any) ntstatus.Status {
		drain.Free()
		finish()
		cancel()
		return ntstatus.MoreProcessingRequired
	}, nil, wsk.InvokeAlways)
	c.s.Receive(nil, wsk.FlagDrain, drain)
	mu.Lock()
	defer mu.Unlock()
	if !closing { // Not before the drain: a close goes with no other call (WSK-CLOSE-01).
		stop = context.AfterFunc(ctx, finish)
	}
}
