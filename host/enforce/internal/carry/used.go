package carry

import (
	"sync/atomic"
	"time"
)

var start = time.Now()

// Used is when something was used last, for those who note it at every datagram. It goes by
// the time that has passed, as a time.Time does: the system's clock may be set meanwhile.
type Used struct{ last atomic.Int64 } // after start

// Note notes that it is used now.
func (u *Used) Note() { u.last.Store(int64(time.Since(start))) }

// Idle is how long before now it was used last.
func (u *Used) Idle(now time.Time) time.Duration {
	return now.Sub(start) - time.Duration(u.last.Load())
}
