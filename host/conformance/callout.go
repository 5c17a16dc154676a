package conformance

import (
	"context"
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"sync"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// A scripted callout does what its section says. Its lines are
//
//	NAME: ACTION [ACTION...]
//	NAME when SELECTOR: ACTION [ACTION...]
//	NAME unregistered
//	NAME notifies | notifies-commit | refuses-filters | flow-deletes | reclassifies | layer=LAYER | provider=ID
//
// The first line whose selector holds is carried out.
type scripted struct {
	name         string
	unregistered bool
	notifies     bool
	commits      bool
	refuses      bool
	deletes      bool
	reclassifies bool
	layer        fwpm.LayerID
	provider     fwpm.ProviderID
	rules        []behaviour
	w            *world
	calls        int
	mu           sync.Mutex
}

type behaviour struct {
	l       line
	when    string
	actions []string
}

const selectors = "not-redirected redirected-by-self redirected-by-other previously-redirected-by-self reauthorize first " +
	"modified-by-others modified-by-self modified-thrice-by-self writable unwritable has-context redirected"

func readCallouts(s section, w *world) (map[string]*scripted, []string, error) {
	out := map[string]*scripted{}
	var order []string
	for _, l := range s.lines() {
		head, actions, acts := strings.Cut(l.text, ": ")
		head = strings.TrimSuffix(head, ":")
		ws := words(head)
		if len(ws) == 0 {
			return nil, nil, l.errorf("expected the name of a callout")
		}
		c := out[ws[0]]
		if c == nil {
			c = &scripted{name: ws[0], w: w}
			out[ws[0]], order = c, append(order, ws[0])
		}
		var err error
		switch {
		case acts && len(ws) == 3 && ws[1] == "when":
			if !hasWord(selectors, ws[2]) {
				return nil, nil, l.errorf("selector %q is unknown; expected one of: %s", ws[2], selectors)
			}
			c.rules = append(c.rules, behaviour{l, ws[2], words(actions)})
		case acts && len(ws) == 1:
			c.rules = append(c.rules, behaviour{l, "", words(actions)})
		case !acts && len(ws) > 1:
			err = c.attributes(l, ws[1:])
		default:
			err = l.errorf("expected NAME: ACTION, NAME when SELECTOR: ACTION, or NAME ATTRIBUTE")
		}
		if err == nil && acts {
			err = checkActions(l, words(actions))
		}
		if err != nil {
			return nil, nil, err
		}
	}
	return out, order, nil
}

func (c *scripted) attributes(l line, ws []string) error {
	for _, w := range ws {
		switch {
		case w == "unregistered":
			c.unregistered = true
		case w == "notifies":
			c.notifies = true
		case w == "notifies-commit":
			c.notifies, c.commits = true, true
		case w == "refuses-filters":
			c.notifies, c.refuses = true, true
		case w == "flow-deletes":
			c.deletes = true
		case w == "reclassifies":
			c.reclassifies = true
		case strings.HasPrefix(w, "provider="):
			c.provider = fwpm.ProviderID(strings.TrimPrefix(w, "provider="))
		case strings.HasPrefix(w, "layer="):
			var err error
			if c.layer, err = readLayer(l, strings.TrimPrefix(w, "layer=")); err != nil {
				return err
			}
		default:
			return l.errorf("attribute %q is unknown", w)
		}
	}
	return nil
}

const (
	plainActions = "permit block continue none nothing hard soft absorb no-handle reauthorize apply apply-again remove acquire acquire-bind pend pend-operation panic invalid format-records"
	valueActions = "redirect pid context record reason error remote port local to handle associate token"
)

func checkActions(l line, ws []string) error {
	for _, w := range ws {
		k, value, valued := strings.Cut(w, "=")
		if valued && !hasWord(valueActions, k) || !valued && !hasWord(plainActions, k) {
			return l.errorf("action %q is unknown; expected one of: %s %s", w, plainActions, withEquals(valueActions))
		}
		var err error
		switch {
		case hasWord("redirect to remote local", k):
			_, err = netip.ParseAddrPort(value)
		case hasWord("pid port associate token", k):
			_, err = strconv.ParseUint(value, 0, 64)
		}
		if err != nil {
			return l.errorf("action %s: %w", k, err)
		}
	}
	return nil
}

// Classify carries out the first line that applies.
func (c *scripted) Classify(_ context.Context, call *fwps.Call, v *fwps.Verdict) error {
	c.mu.Lock()
	c.calls++
	first := c.calls == 1
	c.mu.Unlock()
	c.w.asked(c.name, call)
	for _, r := range c.rules {
		if r.holds(call, first) {
			return c.act(r, call, v)
		}
	}
	return nil
}

func (r *behaviour) holds(call *fwps.Call, first bool) bool {
	switch r.when {
	case "":
		return true
	case "first":
		return first
	case "reauthorize":
		return call.In.ConditionFlags()&fwp.FlagIsReauthorize != 0
	case "redirected":
		return call.In.ConditionFlags()&fwp.FlagIsConnectionRedirected != 0
	case "modified-by-others":
		for v := call.Connect; v != nil; v = v.Previous {
			if v.ModifierFilterID != 0 && v.ModifierFilterID != call.Filter.ID && v.LocalRedirectHandle != 0 {
				return true // CR-11
			}
		}
		return false
	case "modified-by-self":
		return versionsBySelf(call) > 0
	case "modified-thrice-by-self":
		return versionsBySelf(call) >= 3
	case "writable":
		return call.Rights&fwps.RightActionWrite != 0
	case "unwritable":
		return call.Rights&fwps.RightActionWrite == 0
	case "has-context":
		return call.FlowContext != 0
	}
	return call.State.String() == r.when
}

// versionsBySelf counts the versions of the request that the asking filter made:
// the loop guard of callouts (CR-12).
func versionsBySelf(call *fwps.Call) (n int) {
	for v := call.Connect; v != nil; v = v.Previous {
		if v.ModifierFilterID == call.Filter.ID {
			n++
		}
	}
	return n
}

// The optional interfaces of a callout, each as its own type: having it is the flag.
type (
	withNotify     struct{ *scripted }
	withCommit     struct{ withNotify }
	withDelete     struct{ *scripted }
	withBoth       struct{ withNotify }
	withReclassify struct{ *scripted }
)

func (c withNotify) Notify(t fwps.NotifyType, f *fwpm.Filter) error {
	name := [...]string{"ADD_FILTER", "DELETE_FILTER", "ADD_FILTER_POST_COMMIT"}[t]
	c.w.printf("  notify %s: %s filter %d context=%d", c.name, name, f.ID, f.Context)
	if t == fwps.NotifyAddFilter {
		if c.refuses {
			return errors.New("refused")
		}
		f.Context = uint64(f.ID) * 100
	}
	return nil
}

func (withCommit) EnableCommitAddNotify() {}

func (c withDelete) FlowDelete(layer fwpm.LayerID, callout fwpm.CalloutID, context uint64) {
	c.w.printf("  flow-delete %s: %s context=%d", callout, short(layer), context)
}

func (c withBoth) FlowDelete(layer fwpm.LayerID, callout fwpm.CalloutID, context uint64) {
	withDelete{c.scripted}.FlowDelete(layer, callout, context)
}

func (withReclassify) AllowReclassify() {}

// callout gives the scripted one the interfaces it is to have.
func (c *scripted) callout() fwps.Callout {
	switch {
	case c.commits:
		return withCommit{withNotify{c}}
	case c.notifies && c.deletes:
		return withBoth{withNotify{c}}
	case c.notifies:
		return withNotify{c}
	case c.deletes:
		return withDelete{c}
	case c.reclassifies:
		return withReclassify{c}
	}
	return c
}
