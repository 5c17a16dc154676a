package arbitrate

import (
	"slices"
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
	many    uint64 // and of those of the callouts with them
	full    bool   // many is known
}

// take finds out whether the decision is known.
func (k *question) take(p *Program, in *fwps.Incoming, d *fwps.Decision) bool {
	l := p.layer(in.Layer)
	if l == nil || p.opts.Cache == nil {
		return false
	}
	c := p.opts.Cache
	if l.fields.all < fewFilters && !c.marked[in.Layer].Load() {
		return false
	}
	if in.EndpointID%probes == 0 {
		found := k.look(c, p, l, in, d)
		c.probed(in.Layer, found)
		return found
	}
	return !c.useless(in.Layer) && k.look(c, p, l, in, d)
}

// look is take where there may be something.
func (k *question) look(c *Cache, p *Program, l *layer, in *fwps.Incoming, d *fwps.Decision) bool {
	var ok bool
	if k.few, ok = l.fields.inputs.hashOther(l.fields.inputs.hash(l.version, in), in); !ok {
		return false
	}
	k.cache, k.version = c, version{l.version, p.Generation(in.Layer)}
	e, of := c.find(k.few, k.version), l.fields.inputs
	if e == nil && c.asks(k.few) {
		if !k.fill(l, in) {
			return false
		}
		e, of = c.find(k.many, k.version), of|everything
	}
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
	k.many = (everything &^ l.fields.inputs).hash(k.few, in)
	k.many, k.full = (l.fields.inputs | everything).hashOther(k.many, in)
	return k.full
}

// same reports whether the callouts would still be asked, and answer as they did.
func (e *kept) same() bool {
	for i := range e.asked {
		if a := &e.asked[i]; a.slot.registration() != a.registration || a.since.Over() {
			return false
		}
	}
	return true
}

// note is told of each callout that was asked and whether what it did is for others
// too.
func (r *run) note(s *Slot, registration uint64, shared bool, since fwps.Moment) {
	switch {
	case r.known.cache == nil:
	case !shared || r.nasked == maxAsked:
		r.known.cache = nil
	default:
		r.asked[r.nasked] = asked{s, registration, since}
		r.nasked++
	}
}

// keep keeps what was decided if it comes again.
func (r *run) keep(in *fwps.Incoming) {
	k, c := &r.known, r.known.cache
	if c == nil || r.d.Faulted {
		return
	}
	l := r.p.layer(in.Layer)
	hash, of := k.few, l.fields.inputs
	if r.nasked > 0 {
		if !k.fill(l, in) {
			return
		}
		hash, of = k.many, of|everything
	}
	if !c.again(hash) {
		return
	}
	if r.nasked > 0 {
		remember(&c.set(k.few).asks, k.few)
	}
	c.keep(&kept{hash: hash, version: k.version, of: of, in: of.copy(in), asked: slices.Clone(r.asked[:r.nasked]), outcome: r.d.Outcome()})
}
