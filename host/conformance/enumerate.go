package conformance

import (
	"fmt"
	"strings"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
)

// An enumeration is an enumeration handle of the script.
type enumeration interface {
	next(n int) ([]string, error)
	destroy() error
}

type enumerationOf[T any] struct {
	*host.Enum[T]
	show func(T) string
}

func (e enumerationOf[T]) next(n int) (out []string, err error) {
	list, err := e.Next(n)
	for _, v := range list {
		out = append(out, e.show(v))
	}
	return out, err
}

func (e enumerationOf[T]) destroy() error { return e.Destroy() }

// enumerate NAME KIND [TEMPLATE], with conditions on the lines that follow.
func (w *world) enumerate(s *session, a *args) error {
	name, err := a.next("a name")
	if err != nil {
		return err
	}
	kind, err := a.next("a kind of object")
	if err != nil {
		return err
	}
	var e enumeration
	var t fwpm.EnumTemplate
	if hasWord("contexts sublayers callouts", kind) {
		if t, err = readPlainTemplate(a); err != nil {
			return err
		}
	}
	switch kind {
	case "providers":
		e, err = handle(s.ProviderCreateEnumHandle())(func(o fwpm.Provider) string { return flagged(string(o.ID), o.Disabled, "disabled") })
	case "contexts":
		e, err = handle(s.ProviderContextCreateEnumHandle(t))(func(o fwpm.ProviderContext) string { return string(o.ID) })
	case "sublayers":
		e, err = handle(s.SublayerCreateEnumHandle(t))(func(o fwpm.Sublayer) string { return fmt.Sprintf("%s %#x", o.ID, o.Weight) })
	case "callouts":
		e, err = handle(s.CalloutCreateEnumHandle(t))(func(o fwpm.Callout) string { return flagged(string(o.ID), o.Registered, "registered") })
	case "sessions":
		e, err = handle(s.SessionCreateEnumHandle())(func(o host.SessionOptions) string {
			return fmt.Sprintf("%s waits %s", flagged(o.Name, o.Dynamic, "dynamic"), o.TxnWaitTimeout)
		})
	case "filters":
		var t *fwpm.FilterEnumTemplate
		if t, err = readTemplate(a); err != nil {
			return err
		}
		e, err = handle(s.FilterCreateEnumHandle(t))(showFilter)
	default:
		return a.l.errorf("%q cannot be enumerated", kind)
	}
	if err == nil {
		w.enums[name] = e
	}
	w.result(err, "enumerating")
	return nil
}

// handle makes an enumeration of a handle, given how its objects print.
func handle[T any](h *host.Enum[T], err error) func(func(T) string) (enumeration, error) {
	return func(show func(T) string) (enumeration, error) { return enumerationOf[T]{h, show}, err }
}

func flagged(s string, is bool, flag string) string {
	if is {
		return s + " " + flag
	}
	return s
}

func showFilter(f fwpm.Filter) string {
	s := fmt.Sprintf("filter %d %s", f.ID, f.Action)
	if f.Context != 0 {
		s += fmt.Sprintf(" context=%d", f.Context)
	}
	s = flagged(flagged(flagged(s, f.Boottime, "boottime"), f.Persistent, "persistent"), f.Disabled, "disabled")
	return fmt.Sprintf("%s range=%d", s, f.EffectiveWeight>>60)
}

// readPlainTemplate reads the template of what is no filter.
func readPlainTemplate(a *args) (t fwpm.EnumTemplate, err error) {
	o, err := a.options("", "layer provider")
	if err != nil {
		return t, err
	}
	t.Provider = fwpm.ProviderID(o["provider"])
	if o["layer"] != "" {
		t.Layer, err = readLayer(a.l, o["layer"])
	}
	return t, err
}

// readTemplate reads what is left: nothing is no template.
func readTemplate(a *args) (*fwpm.FilterEnumTemplate, error) {
	words, conditions, _ := strings.Cut(strings.Join(a.rest, " "), "\n")
	a.rest = strings.Fields(words)
	if len(a.rest) == 0 {
		return nil, nil
	}
	o, err := a.options("overlapping best sorted boottime-only include-boottime include-disabled", "layer provider callout mask")
	if err != nil {
		return nil, err
	}
	t := &fwpm.FilterEnumTemplate{Provider: fwpm.ProviderID(o["provider"]), Callout: fwpm.CalloutID(o["callout"]), ActionMask: fwpm.AnyAction}
	if o["layer"] != "" {
		if t.Layer, err = readLayer(a.l, o["layer"]); err != nil {
			return nil, err
		}
	}
	if o["mask"] != "" {
		t.ActionMask = fwp.Action(number(o["mask"], 0))
	}
	if o["overlapping"] != "" {
		t.EnumType = fwp.FilterEnumOverlapping
	}
	for name, flag := range map[string]fwp.FilterEnumFlags{"best": fwp.FilterEnumBestTerminatingMatch, "sorted": fwp.FilterEnumSorted,
		"boottime-only": fwp.FilterEnumBoottimeOnly, "include-boottime": fwp.FilterEnumIncludeBoottime, "include-disabled": fwp.FilterEnumIncludeDisabled} {
		if o[name] != "" {
			t.Flags |= flag
		}
	}
	for text := range strings.SplitSeq(conditions, "\n") {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		c, err := readCondition(line{at: a.l.at, text: text}, t.Layer)
		if err != nil {
			return nil, err
		}
		t.Conditions = append(t.Conditions, c)
	}
	return t, nil
}

func (w *world) enumeration(a *args) (enumeration, error) {
	name, err := a.next("an enumeration")
	if err != nil {
		return nil, err
	}
	if w.enums[name] == nil {
		return nil, a.l.errorf("there is no enumeration %q", name)
	}
	return w.enums[name], nil
}

// next NAME N: the next N objects.
func (w *world) next(a *args) error {
	e, err := w.enumeration(a)
	if err != nil {
		return err
	}
	n, err := a.next("a number")
	if err != nil {
		return err
	}
	list, err := e.next(int(number(n, 0)))
	for _, s := range list {
		w.printf("  %s", s)
	}
	w.result(err, "%d", len(list))
	return nil
}

// destroy NAME
func (w *world) destroy(a *args) error {
	e, err := w.enumeration(a)
	if err == nil {
		w.result(e.destroy(), "destroyed")
	}
	return err
}
