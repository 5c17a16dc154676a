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
	now  atomic.Int64 // 0: stopped
	seen atomic.Bool  // since the last step
	mu   sync.Mutex
	stop chan struct{} // nil: closed, or not begun
	wg   sync.WaitGroup
}

// read is the time in nanoseconds since started.
func (c *clock) read() int64 {
	if now := c.now.Load(); now != 0 && c.seen.Load() { // Most calls write nothing that others read.
		return now
	}
	return c.look()
}

// look is the first since the last step.
func (c *clock) look() int64 {
	c.seen.Store(true)
	if now := c.now.Load(); now != 0 {
		return now
	}
	return c.wake()
}

// wake starts the clock again. It holds the lock only when the clock stands.
func (c *clock) wake() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.now.Load(); now != 0 { // Others were told that, and will be until the next step.
		return now
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
		if c.seen.Swap(false) {
			idle = 0
		}
		c.now.Store(int64(time.Since(started)) | 1)
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
