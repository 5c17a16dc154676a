package guest

import (
	"fmt"
	"maps"
	"sync"
	"sync/atomic"

	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/sdk/abi"
)

var (
	_ fwps.Notifier    = (*Module)(nil)
	_ fwps.FlowDeleter = (*Module)(nil)
)

// filters are those that call a module out. Each instance hears of a change
// before its next decision, so that none is asked for a filter it does not know.
type filters struct {
	version atomic.Uint64
	mu      sync.Mutex
	live    map[fwpm.FilterID]fwpm.LayerID
}

func (f *filters) change(id fwpm.FilterID, layer fwpm.LayerID, added bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.live == nil {
		f.live = map[fwpm.FilterID]fwpm.LayerID{}
	}
	if added {
		f.live[id] = layer
	} else {
		delete(f.live, id)
	}
	f.version.Add(1)
}

func (f *filters) read() (uint64, map[fwpm.FilterID]fwpm.LayerID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.version.Load(), maps.Clone(f.live)
}

// Notify is the notifyFn. A guest that refuses an added filter keeps it out of
// the policy (CO-NOT-02), and so does one that cannot be asked, which may have refused it.
func (m *Module) Notify(t fwps.NotifyType, f *fwpm.Filter) error {
	added := t == fwps.NotifyAddFilter
	if !added && t != fwps.NotifyDeleteFilter {
		return nil
	}
	m.filters.change(f.ID, f.Layer, added)
	m.epoch.End()
	if g := m.live.Load(); !added || g != nil && !g.src.hears {
		return nil
	}
	err := m.with(func(*slot) error { return nil })
	if err != nil {
		m.filters.change(f.ID, f.Layer, false)
	}
	return err
}

// FlowDelete is the flowDeleteFn: the guest gets its cookie back, after it heard
// that the flow was established.
func (m *Module) FlowDelete(layer fwpm.LayerID, _ fwpm.CalloutID, cookie uint64) {
	if m.end(layer, cookie) {
		m.slow(nil)
	}
}

// end tells the guest that its flow ended, and reports whether the guest failed.
func (m *Module) end(layer fwpm.LayerID, cookie uint64) (bad bool) {
	m.hearing.Lock()
	defer m.hearing.Unlock()
	for m.catchUp() {
		bad = true
	}
	err := m.with(func(s *slot) error {
		i := s.inst
		if i.notify == nil {
			return nil
		}
		i.event(layer, 0)
		le.PutUint64(i.block[abi.ResponseOffset+abi.RespCookie:], cookie)
		return i.hear(abi.EventFlowDeleted)
	})
	if err != nil && !unasked(err) {
		m.log.Printf("%v", err)
	}
	return bad || faulty(err)
}

// with runs f on a ready slot, but not in quarantine.
func (m *Module) with(f func(*slot) error) error {
	var hint uint32
	s, err := m.acquire(&hint)
	if err != nil {
		return err
	}
	defer s.mu.Unlock()
	if err = s.g.ready(s); err == nil {
		err = f(s)
	}
	switch {
	case err == nil:
		return nil
	case !isTrap(err):
		return fmt.Errorf("callout %q: %w", m.name, err)
	}
	return m.lost(s, err)
}

// outdated reports whether the guest wants to know of filters and has not heard of all.
func (i *instance) outdated() bool {
	return i.notify != nil && i.toldVersion != i.m.filters.version.Load()
}

// tell lets the guest know which filters came and went since it last heard.
func (i *instance) tell() error {
	version, live := i.m.filters.read()
	if i.told == nil {
		i.told = map[fwpm.FilterID]fwpm.LayerID{}
	}
	for id, layer := range i.told {
		if _, still := live[id]; still {
			continue
		}
		i.event(layer, id)
		if err := i.hear(abi.EventFilterDeleted); err != nil && isTrap(err) { // CO-NOT-03: its no is ignored.
			return err
		}
		delete(i.told, id)
	}
	for id, layer := range live {
		if _, known := i.told[id]; known {
			continue
		}
		i.event(layer, id)
		if err := i.hear(abi.EventFilterAdded); err != nil {
			return err
		}
		i.told[id] = layer
	}
	i.toldVersion = version
	return nil
}

// event writes the request of an event that is about no connection.
func (i *instance) event(layer fwpm.LayerID, filter fwpm.FilterID) {
	clear(i.block[:abi.RequestHeader])
	clear(i.block[abi.ResponseOffset : abi.ResponseOffset+abi.ResponseHeader])
	le.PutUint32(i.block[abi.ReqSize:], abi.RequestHeader)
	le.PutUint16(i.block[abi.ReqMinor:], abi.Minor)
	le.PutUint16(i.block[abi.ReqLayer:], uint16(layer))
	le.PutUint64(i.block[abi.ReqFilter:], uint64(filter))
}

// A refusal is a guest's no, which is no failure.
type refusal struct{ text string }

func (r *refusal) Error() string { return r.text }

// hear runs callout_notify, if the guest still wants to hear. The request has been
// written.
func (i *instance) hear(event uint64) error {
	if i.notify == nil {
		return nil
	}
	i.refill(i.m.opts.FuelSlices)
	i.stack[0] = event
	if err := i.notify.CallWithStack(&i.ctx, i.stack[:]); err != nil {
		return fmt.Errorf("%s: %w", abi.ExportNotify, i.cause(err))
	}
	switch code := int32(i.stack[0]); code {
	case 0:
		return nil
	case abi.NotifyNone:
		i.notify = nil
		return nil
	default:
		return &refusal{fmt.Sprintf("%s refused the event: %s", abi.ExportNotify, i.refusal(code))}
	}
}
