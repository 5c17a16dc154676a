package ale

import (
	"cmp"
	"slices"
)

// flights are the redirects to one target that are under way, and the accepts there
// that wait for one of them.
type flights struct {
	tickets []uint64  // in the order in which they began
	waiters []*waiter // by upto
}

// A waiter is an accept that came before connect returned. A redirect that began
// after it cannot be its own: it waits for those with lower tickets than upto.
type waiter struct {
	key
	upto uint64
	news chan struct{} // closed when it has to look again
}

// under reports whether a redirect is under way that began before upto.
func (f *flights) under(upto uint64) bool {
	return f != nil && len(f.tickets) > 0 && f.tickets[0] < upto
}

// land takes a redirect out, and returns those that need not wait any longer.
func (f *flights) land(ticket uint64) []*waiter {
	if i, ok := slices.BinarySearch(f.tickets, ticket); ok {
		f.tickets = slices.Delete(f.tickets, i, i+1)
	}
	n := 0
	for n < len(f.waiters) && !f.under(f.waiters[n].upto) {
		n++
	}
	return f.waiters[:n]
}

func (f *flights) add(w *waiter) {
	i, _ := slices.BinarySearchFunc(f.waiters, w.upto, byUpto)
	f.waiters = slices.Insert(f.waiters, i, w)
}

func (f *flights) remove(w *waiter) {
	i, _ := slices.BinarySearchFunc(f.waiters, w.upto, byUpto)
	i += slices.Index(f.waiters[i:], w)
	f.waiters = slices.Delete(f.waiters, i, i+1)
}

func byUpto(w *waiter, upto uint64) int { return cmp.Compare(w.upto, upto) }
