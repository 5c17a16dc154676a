package conformance

import (
	"strings"

	"github.com/calloutd/calloutd/host/fwpm"
)

var engineOptions = map[string]fwpm.EngineOption{"collect": fwpm.EngineCollectNetEvents, "keywords": fwpm.EngineNetEventMatchAnyKeywords, "none": 99}

func engineOption(a *args) (fwpm.EngineOption, error) {
	name, err := a.next("an option")
	o, known := engineOptions[name]
	if err == nil && !known {
		err = a.l.errorf("option %q is unknown; expected collect or keywords", name)
	}
	return o, err
}

// set collect|keywords VALUE
func (w *world) setOption(s *session, a *args) error {
	o, err := engineOption(a)
	if err != nil {
		return err
	}
	v, err := a.next("a value")
	if err != nil {
		return err
	}
	w.result(s.SetOption(o, number(v, 0)), "set")
	return nil
}

func (w *world) getOption(s *session, a *args) error {
	o, err := engineOption(a)
	if err != nil {
		return err
	}
	v, err := s.GetOption(o)
	w.result(err, "%#x", v)
	return nil
}

// boot-complete [SERVICE...]: the host is ready, and only these services start.
func (w *world) bootComplete(a *args) error {
	services := strings.Join(a.rest, " ")
	a.rest = nil
	w.result(w.engine.BootComplete(func(s string) bool { return hasWord(services, s) }), "ready")
	return nil
}

// statistics LAYER
func (w *world) statistics(a *args) error {
	l, err := a.layer()
	if err != nil {
		return err
	}
	n := w.engine.LayerStatistics(l)
	w.printf("= %d asked: %d permits, %d blocks, %d of them vetoes", n.ClassifyCount(), n.ClassifyPermitCount, n.ClassifyBlockCount, n.ClassifyVetoCount)
	return nil
}
