package conformance

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/calloutd/calloutd/host/arbitrate"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
)

// object reads the object of an add command into a policy of its own. Conditions
// of a filter follow it on lines of their own.
func object(a *args) (*fwpm.Policy, error) {
	text := strings.ReplaceAll(strings.Join(a.rest, " "), " \n ", "\n  ")
	a.rest = nil
	file, at, _ := strings.Cut(a.l.at, ":")
	n, _ := strconv.Atoi(at)
	return readPolicy(section{file, n, text})
}

// add filter|sublayer|callout|context|provider ...: one transaction of its own.
func (w *world) add(a *args) error {
	add, err := object(a)
	if err != nil {
		return err
	}
	err = w.engine.Update(func(p *fwpm.Policy) error {
		p.Providers, p.Sublayers = append(p.Providers, add.Providers...), append(p.Sublayers, add.Sublayers...)
		p.ProviderContexts, p.Callouts = append(p.ProviderContexts, add.ProviderContexts...), append(p.Callouts, add.Callouts...)
		p.Filters = append(p.Filters, add.Filters...)
		return nil
	})
	w.result(err, "added")
	return nil
}

// delete filter ID
func (w *world) delete(a *args) error {
	kind, _ := a.next("filter")
	id, err := a.next("an id")
	if err != nil {
		return err
	}
	if kind != "filter" {
		return a.l.errorf("only a filter can be deleted so")
	}
	err = w.engine.Update(func(p *fwpm.Policy) error {
		for i := range p.Filters {
			if fmt.Sprint(p.Filters[i].ID) == id {
				p.Filters = append(p.Filters[:i], p.Filters[i+1:]...)
				return nil
			}
		}
		return fmt.Errorf("there is no filter %s", id)
	})
	w.result(err, "deleted")
	return nil
}

// many sublayers|callouts N: a policy with so many, the built-in ones not counted.
func (w *world) many(a *args) error {
	kind, err := a.next("sublayers or callouts")
	if err != nil {
		return err
	}
	text, err := a.next("a number")
	if err != nil {
		return err
	}
	err = w.engine.Update(func(p *fwpm.Policy) error {
		for i := range number(text, 0) {
			id := fmt.Sprint("many", i)
			if kind == "callouts" {
				p.Callouts = append(p.Callouts, fwpm.Callout{ID: fwpm.CalloutID(id), Name: id})
			} else {
				p.Sublayers = append(p.Sublayers, fwpm.Sublayer{ID: fwpm.SublayerID(id), Name: id})
			}
		}
		return nil
	})
	w.result(err, "added")
	if err != nil {
		return nil
	}
	return w.engine.Update(func(p *fwpm.Policy) error { *p = fwpm.Policy{}; return nil })
}

func (w *world) registerCommand(a *args) error {
	name, err := a.next("a callout")
	if err != nil {
		return err
	}
	if w.callouts[name] == nil {
		return a.l.errorf("there is no callout %q", name)
	}
	w.result(w.register(name), "registered")
	return nil
}

func (w *world) unregisterCommand(a *args) error {
	name, err := a.next("a callout")
	if err != nil {
		return err
	}
	if w.unreg[name] == nil {
		return a.l.errorf("callout %q was never registered", name)
	}
	w.result(w.unreg[name](), "unregistered")
	return nil
}

// layers: every layer with its identifier and key.
func (w *world) layers(*args) error {
	for _, l := range fwpm.Layers() {
		w.printf("%d %s %s", l, short(l), l.GUID())
	}
	return nil
}

// layer LAYER: what it is and offers.
func (w *world) layer(a *args) error {
	l, err := a.layer()
	if err != nil {
		return err
	}
	w.printf("id %d key %s", l, l.GUID())
	for i, c := range l.Fields() {
		w.printf("%d %s %s", i, c, c.DataType(l))
	}
	w.printf("flags: %s", strings.Join(l.Flags().Names(), " "))
	w.printf("metadata: %s", strings.Join(l.Metadata().Names(), " "))
	w.printf("PendClassify %v, PendOperation %v", l.CanPendClassify(), l.CanPendOperation())
	return nil
}

// fields LAYER: the names of its fields, by index.
func (w *world) fields(a *args) error {
	l, err := a.layer()
	if err != nil {
		return err
	}
	for _, c := range l.Fields() {
		w.printf("%s", c)
	}
	return nil
}

// condition LAYER FIELD MATCH VALUE: whether a filter may have it.
func (w *world) condition(a *args) error {
	l, err := a.layer()
	if err != nil {
		return err
	}
	text := a.l
	text.text = strings.Join(a.rest, " ")
	a.rest = nil
	c, err := readCondition(text, l)
	if err != nil {
		return err
	}
	check, err := arbitrate.NewChecker(new(fwpm.Policy))
	if err != nil {
		return err
	}
	f := &fwpm.Filter{ID: 1, Name: "f", Layer: l, Action: actionWords["block"], Conditions: []fwpm.Condition{c}}
	w.result(check.Filter(f), "fits")
	return nil
}

// order LAYER: the filters of a layer, the heaviest first, with the range of
// their weights: how the engine fills the other 60 bits is its own affair.
func (w *world) filterOrder(a *args) error {
	l, err := a.layer()
	if err != nil {
		return err
	}
	fs := filtersOf(w.engine.Policy(), "", l)
	for _, f := range fs {
		weight, err := arbitrate.EffectiveWeight(f)
		if err != nil {
			return a.l.errorf("%w", err)
		}
		what := fmt.Sprintf("range %d", weight>>60)
		if f.Weight.Type == fwp.Uint64 {
			what = fmt.Sprintf("weight %d", weight)
		}
		w.printf("filter %d in %s: %s", f.ID, sublayerOf(f), what)
	}
	return nil
}

// abort NAME: FwpsFlowAbort0 on its flow.
func (w *world) abort(a *args) error {
	s, err := w.flow(a)
	if err != nil {
		return err
	}
	s.flow.OnAbort(func() { w.printf("  the connection is aborted"); s.flow.Close() })
	s.flow.Abort()
	return nil
}

// remove-context NAME CALLOUT LAYER: FwpsFlowRemoveContext0.
func (w *world) removeContext(a *args) error {
	s, err := w.sock(a)
	if err != nil {
		return err
	}
	callout, err := a.next("a callout")
	if err != nil {
		return err
	}
	name, err := a.next("a layer")
	if err != nil {
		return err
	}
	l, err := readLayer(a.l, name)
	if err != nil || s.flow == nil {
		return a.l.errorf("no flow or layer: %v", err)
	}
	pending, err := s.flow.RemoveContext(l, fwpm.CalloutID(callout))
	w.result(err, "removed, pending: %v", pending)
	return nil
}
