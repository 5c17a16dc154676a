package guest

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// clockStep is how far the clock of requests may be behind: reading the real
	// one takes longer than most decisions.
	clockStep = 5 * time.Millisecond
	// clockIdle is after how many steps without a decision the clock stops.
	clockIdle = 20
)

// started is where the monotonic clock of requests begins.
var started = time.Now()

// A clock tells the time in steps while somebody looks at it, and stops when
// nobody does.
type clock struct {
	// now is the time, less than zero until somebody looks at it; 0: stopped.
	now  atomic.Int64
	mu   sync.Mutex
	stop chan struct{} // nil: closed, or not begun
	wg   sync.WaitGroup
}

// read is the time in nanoseconds since started. Most calls write nothing that
// others read.
func (c *clock) read() int64 {
	if now := c.now.Load(); now > 0 {
		return now
	}
	return c.look()
}

// look is the first since the last step.
func (c *clock) look() int64 {
	switch now := c.now.Load(); {
	case now > 0:
		return now
	case now < 0:
		c.now.CompareAndSwap(now, -now) // Else another one looks, or there was a step.
		return -now
	}
	return c.wake()
}

// wake starts the clock again. It holds the lock only when the clock stands.
func (c *clock) wake() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.now.Load(); now != 0 { // Others were told that, and will be until the next step.
		return max(now, -now)
	}
	now := int64(time.Since(started)) | 1
	if c.stop == nil {
		return now
	}
	c.now.Store(now)
	stop := c.stop
	c.wg.Go(func() { c.run(stop) })
	return now
}

func (c *clock) run(stop <-chan struct{}) {
	defer func() {
		c.mu.Lock()
		c.now.Store(0)
		c.mu.Unlock()
	}()
	tick := time.NewTicker(clockStep)
	defer tick.Stop()
	for idle := 0; idle < clockIdle; idle++ {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		if c.now.Load() > 0 {
			idle = 0
		}
		c.now.Store(-(int64(time.Since(started)) | 1))
	}
}

func (c *clock) open() { c.stop = make(chan struct{}) }

func (c *clock) close() {
	c.mu.Lock()
	if c.stop != nil {
		close(c.stop)
		c.stop = nil
	}
	c.mu.Unlock()
	c.wg.Wait()
}
