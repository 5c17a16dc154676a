package arbitrate

import (
	"sync/atomic"

	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// fewFilters are matched in less time than a look into the cache takes.
const fewFilters = 64

// versions numbers what layers were, in all programs.
var versions atomic.Uint64

// fields counts the filters of a layer that test each field.
type fields struct {
	of     [fwpm.NumConditions]uint32
	inputs inputs // those that are not zero
	all    int
}

// count takes a filter in, or out.
func (fs *fields) count(f *fwpm.Filter, more int) {
	fs.all += more
	for i := range f.Conditions {
		c := f.Conditions[i].Field
		if fs.of[c] += uint32(more); fs.of[c] == 0 {
			fs.inputs &^= bit(c)
		} else {
			fs.inputs |= bit(c)
		}
	}
}

// A question is a classification as the cache sees it.
type question struct {
	cache   *Cache // nil: the answer is not kept
	version version
	few     uint64 // the hash of the inputs of the filters
	many    uint64 // that of those and the inputs of the callouts
	full    bool   // many is known
}

// keeping is a question whose answer is kept, with the callouts that had a part in it.
// An array, so that it lives on the stack.
type keeping struct {
	question
	asked  [maxAsked]asked
	nasked int
}

// cached reports whether the decisions of a layer are worth a look into the cache.
func (l *layer) cached(c *Cache, id fwpm.LayerID) bool {
	return c != nil && (l.fields.all >= fewFilters || c.marked[id].Load())
}

// take finds out whether the decision is known.
func (k *question) take(p *Program, l *layer, in *fwps.Incoming, d *fwps.Decision) bool {
	c := p.opts.Cache
	if in.EndpointID%probes == 0 {
		found := k.look(c, p, l, in, d)
		c.probed(in.Layer, found)
		return found
	}
	return !c.useless(in.Layer) && k.look(c, p, l, in, d)
}

// look is take where there may be something.
func (k *question) look(c *Cache, p *Program, l *layer, in *fwps.Incoming, d *fwps.Decision) bool {
	k.version = version{l.version, p.Generation(in.Layer)}
	of, called := l.fields.inputs, c.called[in.Layer].Load()
	if called && k.fill(l, in) && c.find(k.many, k.version).take(of|everything, in, d) {
		return true
	}
	var ok bool
	if k.few, ok = of.hashOther(of.hash(l.version, in), in); !ok {
		return false
	}
	k.cache = c
	return c.find(k.few, k.version).take(of, in, d) ||
		!called && c.asks(k.few) && k.fill(l, in) && c.find(k.many, k.version).take(of|everything, in, d)
}

// take makes d what is kept, if it is of the inputs that decide and they are equal.
func (e *kept) take(of inputs, in *fwps.Incoming, d *fwps.Decision) bool {
	if e == nil || e.of != of || !of.equal(&e.in, in) || !e.same() {
		return false
	}
	d.Take(&e.outcome, in)
	return true
}

// fill makes the hash for a decision in which callouts have a part. Records and flow
// contexts are of one connection alone.
func (k *question) fill(l *layer, in *fwps.Incoming) bool {
	if k.full || len(in.Records) > 0 || in.Flow != nil && in.Flow.Associated() {
		return k.full
	}
	of := l.fields.inputs | everything
	k.many, k.full = of.hashOther(of.hash(^l.version, in), in)
	return k.full
}

// same reports whether the callouts would still be asked, and answer as they did.
func (e *kept) same() bool {
	for i := range e.asked[:e.nasked] {
		if a := &e.asked[i]; a.slot.registration() != a.registration || a.since.Over() {
			return false
		}
	}
	return true
}

// note is told of each callout that was asked and whether what it did is for others
// too.
func (r *run) note(s *Slot, registration uint64, shared bool, since fwps.Moment) {
	switch k := r.keeping; {
	case k == nil:
	case !shared || k.nasked == maxAsked:
		r.keeping = nil
	default:
		k.asked[k.nasked] = asked{s, registration, since}
		k.nasked++
	}
}

// keep keeps what was decided if it comes again.
func (r *run) keep(in *fwps.Incoming) {
	k, c, l := r.keeping, r.keeping.cache, r.layer
	if r.d.Faulted {
		return
	}
	hash, of := k.few, l.fields.inputs
	if k.nasked > 0 {
		if !k.fill(l, in) {
			return
		}
		hash, of = k.many, of|everything
	}
	if !c.again(hash) {
		return
	}
	called := k.nasked > 0
	if called {
		remember(&c.set(k.few).asks, k.few)
	}
	if c.called[in.Layer].Load() != called {
		c.called[in.Layer].Store(called)
	}
	c.keep(&kept{hash: hash, version: k.version, of: of, in: of.copy(in), nasked: k.nasked, asked: k.asked, outcome: r.d.Outcome()})
}
