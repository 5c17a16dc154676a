// Package cputime is a clock that other work on the machine does not move.
package cputime

import "time"

// Thread is how long the current thread has worked. Two readings can be compared
// when the goroutine is locked to its thread. Where the system does not tell, it is
// the time of day.
func Thread() time.Duration { return thread() }

// Best is the least time that one call of f took, of several rounds of n calls.
// The caller must be locked to its thread.
func Best(rounds, n int, f func(i int)) time.Duration {
	best := time.Duration(1<<63 - 1)
	for r := range rounds {
		start := Thread()
		for i := range n {
			f(r*n + i)
		}
		best = min(best, Thread()-start)
	}
	return best / time.Duration(n)
}
