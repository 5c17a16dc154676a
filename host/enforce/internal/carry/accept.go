package carry

import (
	"context"
	"errors"
	"net"
	"time"
)

// Accept gives each connection of a listener to a function, until the listener is closed
// or ctx ends. What fails for another reason, such as a lack of descriptors, which passes,
// is told and tried again after a while: until then connections wait with the kernel.
func Accept(ctx context.Context, l *net.TCPListener, tell func(error), each func(*net.TCPConn)) {
	const longest = time.Second
	for wait := time.Millisecond; ; {
		c, err := l.AcceptTCP()
		switch {
		case err == nil:
			wait = time.Millisecond
			each(c)
			continue
		case errors.Is(err, net.ErrClosed):
			return
		}
		tell(err)
		select {
		case <-time.After(wait):
			wait = min(2*wait, longest)
		case <-ctx.Done():
			return
		}
	}
}
