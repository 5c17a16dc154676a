package arbitrate

import (
	"slices"
	"sync"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwps"
)

// late are filters whose callouts asked to hear of later changes of the request,
// seen the version each of them knows.
type late struct {
	filters [MaxRounds]*filter
	seen    [MaxRounds]int
	n       int
}

// lates lends them: few classifications have any, and those that have none do not
// clear the room for them.
var lates = sync.Pool{New: func() any { return new(late) }}

// hears notes that a filter's callout wants to hear of changes that come later. It
// is false when there are too many such filters.
func (r *run) hears(f *filter) bool {
	if r.late == nil {
		r.late = lates.Get().(*late)
		r.late.n = 0
	}
	l := r.late
	if slices.Contains(l.filters[:l.n], f) {
		return true
	}
	if l.n == len(l.filters) {
		return false
	}
	l.filters[l.n], l.seen[l.n] = f, r.d.Versions()
	l.n++
	return true
}

// reauthorize asks callouts again that wanted to hear of changes by others
// (CH-05, SC-73). They may change the request again, so there is a cap, after
// which the current data counts (AMB-29). There is one round of it: the next begins
// without. Of what they decide a block counts (AMB-23): who permits has done so before.
func (r *run) reauthorize() {
	l, d := r.late, r.d
	for range MaxRounds {
		at := l.outdated(d)
		if r.again || d.Faulted || at < 0 || d.Versions() == fwps.MaxVersions {
			break
		}
		f := l.filters[at]
		r.in = d.Reauthorize(r.in, 0)
		a := answer{step: d.PushStep()}
		r.call(f, &a)
		l.seen[at] = d.Versions()
		switch {
		case r.again:
		case d.Faulted:
			d.Action, d.Rights, d.Deciding, d.Absorbed = fwp.ActionBlock, 0, len(d.Steps)-1, false
		case a.action == fwp.ActionBlock:
			r.combine(&a)
		}
	}
	r.late = nil
	lates.Put(l)
}

// outdated is the first of the callouts whose request was changed by another one
// since, -1 if none is.
func (l *late) outdated(d *fwps.Decision) int {
	for i := range l.filters[:l.n] {
		if l.seen[i] < d.Versions() {
			return i
		}
	}
	return -1
}
