// Package fwpm holds the objects a policy is made of: the FWPM_ names of
// fwpmtypes.h and fwpmu.h. They are plain values; an engine compiles them.
package fwpm

import (
	"fmt"
	"slices"

	"github.com/calloutd/calloutd/host/fwp"
)

// Names of objects. Each is unique among the objects of its kind.
type (
	ProviderID        string
	ProviderContextID string
	SublayerID        string
	CalloutID         string
	// FilterID is the run-time identifier of a filter; older filters have the
	// lower one and go first at equal weight (AMB-37).
	FilterID uint64
)

// SublayerUniversal is FWPM_SUBLAYER_UNIVERSAL: where a filter without a
// sublayer lives (BFE-SUB-02). It need not be added to a policy.
const SublayerUniversal SublayerID = "universal"

// SublayerUniversalWeight is the weight of SublayerUniversal (BFE-SUB-03).
const SublayerUniversalWeight uint16 = 0x8000

// SublayerInspection is FWPM_SUBLAYER_INSPECTION, the lightest (BFE-SUB-03). It
// need not be added to a policy.
const SublayerInspection SublayerID = "inspection"

// A Provider is FWPM_PROVIDER: who owns objects. Management only (BFE-OBJ-06).
type Provider struct {
	ID         ProviderID // Required; an Add of a Session gives one.
	Name       string     // Required of what a Session adds (BFE-OBJ-05), else recommended.
	Persistent bool       // FWPM_PROVIDER_FLAG_PERSISTENT
	// ServiceName is the service whose being enabled gates the provider's
	// persistent objects at start-up (BFE-OBJ-06). Optional.
	ServiceName string
	Disabled    bool // FWPM_PROVIDER_FLAG_DISABLED; output only
}

// A ProviderContext is FWPM_PROVIDER_CONTEXT: data of a provider that its
// callouts find through their filters.
type ProviderContext struct {
	ID         ProviderContextID // Required; an Add of a Session gives one.
	Name       string            // Required of what a Session adds (BFE-OBJ-05), else recommended.
	Provider   ProviderID        // Optional.
	Persistent bool              // FWPM_PROVIDER_CONTEXT_FLAG_PERSISTENT
	Data       []byte            // not to be modified once it is in a policy
}

// A Sublayer is FWPM_SUBLAYER: filters that are arbitrated together.
type Sublayer struct {
	ID         SublayerID // Required; an Add of a Session gives one.
	Name       string     // Required of what a Session adds (BFE-OBJ-05), else recommended.
	Provider   ProviderID // Optional.
	Persistent bool       // FWPM_SUBLAYER_FLAG_PERSISTENT
	// Weight orders the sublayers of a layer, the highest first (BFE-SUB-01).
	Weight uint16
}

// A Callout is FWPM_CALLOUT: the promise that code of this name will be
// registered with the engine (CO-REG-06).
type Callout struct {
	ID         CalloutID  // Required; an Add of a Session gives one.
	Name       string     // Required of what a Session adds (BFE-OBJ-05), else recommended.
	Provider   ProviderID // Optional. The provider of the callout's redirect handle.
	Persistent bool       // FWPM_CALLOUT_FLAG_PERSISTENT
	// ApplicableLayer is the only layer whose filters may call it. Optional: any.
	ApplicableLayer LayerID
	Registered      bool // FWPM_CALLOUT_FLAG_REGISTERED; output only
}

// A Weight is a filter's weight in one of its three forms (BFE-WGT-01). The
// zero Weight lets the engine choose.
type Weight struct {
	// Type is fwp.Empty (engine chooses), fwp.Uint8 (a range 0-15 that becomes
	// the top four bits) or fwp.Uint64 (used as is).
	Type  fwp.DataType
	Value uint64
}

// A Condition is FWPM_FILTER_CONDITION.
type Condition struct {
	Field ConditionID
	Match fwp.Match
	Value fwp.Value
}

// A Filter is FWPM_FILTER. Conditions on different fields must all hold;
// conditions on one field are alternatives (BFE-CND-01).
type Filter struct {
	ID         FilterID   // Required, not zero; Session.FilterAdd gives one.
	Name       string     // Required: the display name that denials and traces print.
	Provider   ProviderID // Optional.
	Layer      LayerID    // Required.
	Sublayer   SublayerID // Optional: SublayerUniversal.
	Weight     Weight     // Optional: the engine chooses.
	Conditions []Condition
	Action     fwp.Action // Required.
	Callout    CalloutID  // Required if Action.CallsOut(), else empty.
	// ClearActionRight makes the decision hard (FWPM_FILTER_FLAG_CLEAR_ACTION_RIGHT, ARB-04).
	ClearActionRight bool
	// PermitIfCalloutUnregistered is FWPM_FILTER_FLAG_PERMIT_IF_CALLOUT_UNREGISTERED (CO-REG-04).
	PermitIfCalloutUnregistered bool
	Persistent                  bool              // FWPM_FILTER_FLAG_PERSISTENT
	Boottime                    bool              // FWPM_FILTER_FLAG_BOOTTIME; never with Persistent (BFE-OBJ-07)
	ProviderContext             ProviderContextID // Optional.
	Disabled                    bool              // FWPM_FILTER_FLAG_DISABLED; output only
	EffectiveWeight             uint64            // what Weight became (BFE-WGT-01); output only

	// Context is the callout's own, set by its notifyFn (CO-NOT-02).
	Context uint64
}

// A Policy is everything an engine enforces. The zero Policy permits all (ARB-09).
type Policy struct {
	Providers        []Provider
	ProviderContexts []ProviderContext
	Sublayers        []Sublayer
	Callouts         []Callout
	Filters          []Filter
}

// Clone returns a copy that shares nothing with p that may be modified.
func (p *Policy) Clone() *Policy {
	c := &Policy{
		Providers: slices.Clone(p.Providers), ProviderContexts: slices.Clone(p.ProviderContexts), Sublayers: slices.Clone(p.Sublayers),
		Callouts: slices.Clone(p.Callouts), Filters: slices.Clone(p.Filters),
	}
	for i := range c.Filters {
		c.Filters[i].Conditions = slices.Clone(c.Filters[i].Conditions)
	}
	return c
}

// An ObjectError says which object of a policy is wrong, and where in it. Err
// is an fwp.Error, so errors.Is(err, fwp.ErrSublayerNotFound) works.
type ObjectError struct {
	Kind  string // "filter", "sublayer", "callout", "provider", "provider context"
	ID    string
	Field string // for example "conditions[2].value"; empty for the whole object
	Err   error
}

func (e *ObjectError) Error() string {
	if e.Field == "" {
		return fmt.Sprintf("%s %s: %v", e.Kind, e.ID, e.Err)
	}
	return fmt.Sprintf("%s %s: %s: %v", e.Kind, e.ID, e.Field, e.Err)
}

func (e *ObjectError) Unwrap() error { return e.Err }
