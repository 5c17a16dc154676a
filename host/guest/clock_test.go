package guest

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestClockGoesForwardAndStops(t *testing.T) {
	var c clock
	c.open()
	defer c.close()
	before := int64(time.Since(started))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for last := c.read(); last < before+int64(20*time.Millisecond); {
				now := c.read()
				if !assert.GreaterOrEqual(t, now, last) {
					return
				}
				last = now
			}
		})
	}
	wg.Wait()
	assert.Eventually(t, func() bool { return c.now.Load() == 0 }, time.Minute, time.Millisecond, "nobody looks")
	assert.GreaterOrEqual(t, c.read(), before, "it goes on")
}

func TestClosedClockTellsTheTime(t *testing.T) {
	var c clock
	c.open()
	c.read()
	c.close()
	before := int64(time.Since(started))
	assert.GreaterOrEqual(t, c.read(), before)
	c.close()
}
