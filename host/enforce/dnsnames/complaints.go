package dnsnames

import (
	"sync"
	"time"
)

// complaintsASecond are logged; of more, which a program can cause, the number is.
const complaintsASecond = 10

type complaints struct {
	logf func(format string, args ...any)

	mu           sync.Mutex
	second       int64
	told, untold int
}

func (c *complaints) tell(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now().Unix(); now != c.second {
		c.count()
		c.second, c.told = now, 0
	}
	if c.told == complaintsASecond {
		c.untold++
		return
	}
	c.told++
	c.logf(format, args...)
}

// close tells of those that are left.
func (c *complaints) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count()
}

func (c *complaints) count() {
	if c.untold > 0 {
		c.logf("dns: %d queries more could not be carried", c.untold)
	}
	c.untold = 0
}
