package systemd

import (
	"time"

	"golang.org/x/sys/unix"
)

// monotonic is the clock that the service manager compares with.
func monotonic() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // It fails only for a clock that there is not.
	return time.Duration(t.Nano())
}
