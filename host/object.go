package host

import (
	"crypto/rand"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/calloutd/calloutd/host/arbitrate"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
)

// A key names an object: keys are unique within a kind (BFE-OBJ-01).
type key struct {
	kind   fwpm.Kind
	name   string
	filter fwpm.FilterID // instead of a name
}

func (k key) id() string {
	if k.kind == fwpm.KindFilter {
		return strconv.FormatUint(uint64(k.filter), 10)
	}
	return k.name
}

// fail is an error of the object, or of one of its fields.
func (k key) fail(field string, err error) error {
	return &fwpm.ObjectError{Kind: k.kind.String(), ID: k.id(), Field: field, Err: err}
}

// missing is the code for an object that is not there, and limit how many there
// can be (BFE-OBJ-04, BFE-SUB-04, CO-REG-07).
var kinds = [fwpm.NumKinds]struct {
	missing fwp.Error
	limit   int
	tooMany fwp.Error
}{
	fwpm.KindProvider:        {fwp.ErrProviderNotFound, math.MaxInt, 0},
	fwpm.KindProviderContext: {fwp.ErrProviderContextNotFound, math.MaxInt, 0},
	fwpm.KindSublayer:        {fwp.ErrSublayerNotFound, 1 << 16, fwp.ErrTooManySublayers},
	fwpm.KindCallout:         {fwp.ErrCalloutNotFound, arbitrate.MaxCallouts, fwp.ErrTooManyCallouts},
	fwpm.KindFilter:          {fwp.ErrFilterNotFound, math.MaxInt, 0},
}

// An object is one object of the policy. It is immutable once it is in objects.
type object struct {
	key
	value    any          // *fwpm.Provider, *fwpm.Filter and so on, as it was added
	filter   *fwpm.Filter // the value of a filter
	provider fwpm.ProviderID
	name     string
	refs     []ref
	builtin  bool
	// stored objects are found again when the host starts anew: persistent and
	// boot-time ones.
	stored bool
	output string   // an output-only field that was set, else empty
	owner  *Session // of a dynamic object, else nil
	seq    uint64   // the order of adding

	// Of filters.
	weight  uint64
	told    *registered // whose notifyFn heard of it
	context uint64      // what that left in it (CO-NOT-02)
}

// A ref is an object that another one refers to, and by which field.
type ref struct {
	field string
	key
}

// newObject makes an object of a copy of a *fwpm.Provider, *fwpm.Filter and so on.
func newObject(value any) *object {
	o := &object{}
	switch v := value.(type) {
	case *fwpm.Provider:
		o.named(fwpm.KindProvider, string(v.ID), v.Name, "", v.Persistent)
		if v.Disabled {
			o.output = "disabled"
		}
		o.provider, o.value = v.ID, ptr(*v)
	case *fwpm.ProviderContext:
		o.named(fwpm.KindProviderContext, string(v.ID), v.Name, v.Provider, v.Persistent)
		o.value = ptr(*v)
	case *fwpm.Sublayer:
		o.named(fwpm.KindSublayer, string(v.ID), v.Name, v.Provider, v.Persistent)
		o.value = ptr(*v)
	case *fwpm.Callout:
		o.named(fwpm.KindCallout, string(v.ID), v.Name, v.Provider, v.Persistent)
		if v.Registered {
			o.output = "registered"
		}
		o.value = ptr(*v)
	case *fwpm.Filter:
		o.ofFilter(v)
	}
	return o
}

func ptr[T any](v T) *T { return &v }

func (o *object) named(kind fwpm.Kind, id, name string, p fwpm.ProviderID, persistent bool) {
	o.key = key{kind: kind, name: id}
	o.name, o.provider, o.stored = name, p, persistent
	o.refer("provider", fwpm.KindProvider, string(p))
}

func (o *object) refer(field string, kind fwpm.Kind, id string) {
	if id != "" {
		o.refs = append(o.refs, ref{field, key{kind: kind, name: id}})
	}
}

func (o *object) ofFilter(v *fwpm.Filter) {
	o.key = key{kind: fwpm.KindFilter, filter: v.ID}
	o.name, o.provider, o.stored = v.Name, v.Provider, v.Persistent || v.Boottime
	o.refer("provider", fwpm.KindProvider, string(v.Provider))
	o.refer("provider_context", fwpm.KindProviderContext, string(v.ProviderContext))
	o.refer("sublayer", fwpm.KindSublayer, string(v.Sublayer))
	o.refer("callout", fwpm.KindCallout, string(v.Callout))
	if v.Disabled {
		o.output = "disabled"
	}
	f := ptr(*v)
	f.Conditions = slices.Clone(v.Conditions)
	f.EffectiveWeight = 0
	o.weight, _ = arbitrate.EffectiveWeight(f) // The checker reports a wrong one.
	o.value, o.filter = f, f
}

// newKey is the GUID of an object that came without a key.
func newKey() string {
	var b [16]byte
	rand.Read(b[:]) // It never fails.
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
