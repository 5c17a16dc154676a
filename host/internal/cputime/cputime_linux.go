package cputime

import (
	"time"

	"golang.org/x/sys/unix"
)

func thread() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		panic("cputime: " + err.Error()) // Every Linux has this clock.
	}
	return time.Duration(t.Nano())
}
