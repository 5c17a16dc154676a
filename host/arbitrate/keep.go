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

// A question is a classification as the cache sees it. The zero one is not for it.
type question struct {
	few    uint64 // the hash of the inputs of the filters
	many   uint64 // that of those and the inputs of the callouts
	match  *kept  // nil: it is not known which filters match
	learns bool   // few is known: what is decided may be kept
	full   bool   // many is known
}

// cached reports whether the decisions of a layer are worth a look into the cache.
func (l *layer) cached(c *Cache, id fwpm.LayerID) bool {
	return c != nil && (l.fields.all >= fewFilters || c.marked[id].Load())
}

// take finds out whether the decision is known, or else which filters match.
func (k *question) take(p *Program, l *layer, in *fwps.Incoming, d *fwps.Decision) bool {
	c := p.opts.Cache
	if in.EndpointID%probes == 0 {
		taken := k.look(c, p, l, in, d)
		c.probed(in.Layer, taken || k.match != nil)
		return taken
	}
	return !c.useless(in.Layer) && k.look(c, p, l, in, d)
}

// look is take where there may be something.
func (k *question) look(c *Cache, p *Program, l *layer, in *fwps.Incoming, d *fwps.Decision) bool {
	v := p.version(l, in.Layer)
	of, called := l.fields.inputs, c.called[in.Layer].Load()
	if called && k.fill(l, in) && c.find(k.many, v).take(of|everything, in, d) {
		return true
	}
	if k.few, k.learns = of.hashOther(of.hash(l.version, in), in); !k.learns {
		return false
	}
	e := c.find(k.few, v)
	switch {
	case e == nil || e.match == nil:
		return e.take(of, in, d)
	case !called && c.marked[in.Layer].Load() && k.fill(l, in) && c.find(k.many, v).take(of|everything, in, d):
		return true
	case e.fits(of, in):
		k.match = e
	}
	return false
}

// version is what decisions of a layer depend on.
func (p *Program) version(l *layer, id fwpm.LayerID) version {
	return version{l.version, p.Generation(id)}
}

// fits reports whether the entry is of the inputs that decide and they are equal.
func (e *kept) fits(of inputs, in *fwps.Incoming) bool { return e.of == of && of.equal(&e.in, in) }

// take makes d what is kept, if it is of such a connection.
func (e *kept) take(of inputs, in *fwps.Incoming, d *fwps.Decision) bool {
	if e == nil || !e.fits(of, in) || !e.same() {
		return false
	}
	d.Take(&e.outcome, in)
	return true
}

// fill makes many.
func (k *question) fill(l *layer, in *fwps.Incoming) bool {
	k.many, k.full = l.hashAll(in)
	return k.full
}

// hashAll is the hash for a decision in which callouts have a part. Records and flow
// contexts are of one connection alone.
func (l *layer) hashAll(in *fwps.Incoming) (hash uint64, ok bool) {
	if len(in.Records) > 0 || in.Flow != nil && in.Flow.Associated() {
		return 0, false
	}
	of := l.fields.inputs | everything
	return of.hashOther(of.hash(^l.version, in), in)
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

// learn makes room for what may be kept, under a hash that was missed before: memory is
// for what comes again.
func (r *run) learn(hash uint64, of inputs) *kept {
	if !r.p.opts.Cache.again(hash) {
		return nil
	}
	return &kept{hash: hash, version: r.p.version(r.layer, r.in.Layer), of: of, in: of.copy(r.in)}
}

// note is told of each callout that was asked and whether what it did is for others
// too.
func (r *run) note(s *Slot, registration uint64, shared bool, since fwps.Moment) {
	first := !r.called
	switch r.called = true; {
	case !shared:
		r.shared = nil
	case first && r.learns:
		if !r.full {
			r.many, r.full = r.layer.hashAll(r.in)
		}
		if r.full {
			r.shared = r.learn(r.many, r.layer.fields.inputs|everything)
		}
	}
	switch e := r.shared; {
	case e == nil:
	case e.nasked == maxAsked:
		r.shared = nil
	default:
		e.asked[e.nasked] = asked{s, registration, since}
		e.nasked++
	}
}

// keep keeps what was learned: what filters alone decided, or which of them match, and
// what callouts answered, if that is for others too.
func (r *run) keep() {
	c, shared, fresh := r.p.opts.Cache, r.shared != nil && !r.d.Faulted, r.fresh
	switch {
	case fresh == nil:
	case !r.called:
		fresh.match, fresh.outcome = nil, r.d.Outcome()
	case fresh.match == nil: // There was nothing to look for.
		fresh = nil
	}
	if fresh != nil {
		c.keep(fresh)
	}
	if shared {
		r.shared.outcome = r.d.Outcome()
		c.keep(r.shared)
	}
	if called := &c.called[r.in.Layer]; (fresh != nil || shared) && called.Load() != shared {
		called.Store(shared)
	}
}
