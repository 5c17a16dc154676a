package fwpm

import "github.com/calloutd/calloutd/host/fwp"

// Kind is a type of object that a policy is made of.
type Kind uint8

// The kinds of objects that can be added and deleted (BFE-OBJ-01).
const (
	KindProvider Kind = iota + 1
	KindProviderContext
	KindSublayer
	KindCallout
	KindFilter

	// NumKinds is one more than the highest Kind, for tables indexed by kind.
	NumKinds
)

var kindNames = [NumKinds]string{"no object", "provider", "provider context", "sublayer", "callout", "filter"}

// String is the word that ObjectError.Kind has.
func (k Kind) String() string {
	if k < NumKinds {
		return kindNames[k]
	}
	return "unknown object"
}

// An EnumTemplate limits an enumeration of objects that are not filters:
// FWPM_SUBLAYER_ENUM_TEMPLATE, FWPM_CALLOUT_ENUM_TEMPLATE and
// FWPM_PROVIDER_CONTEXT_ENUM_TEMPLATE.
type EnumTemplate struct {
	Provider ProviderID // Optional: any.
	Layer    LayerID    // Optional: any. Callouts only: where they apply.
}

// A FilterEnumTemplate is FWPM_FILTER_ENUM_TEMPLATE (ENUM-02).
type FilterEnumTemplate struct {
	Provider ProviderID // Optional: any.
	Layer    LayerID    // Required.
	EnumType fwp.FilterEnumType
	// Flags include boot-time and disabled filters, which are left out without them.
	Flags      fwp.FilterEnumFlags
	Conditions []Condition // Optional: any. A user can be given as FWP_SID too.
	// ActionMask: filters whose action has one of its bits. Required;
	// AnyAction is every filter.
	ActionMask fwp.Action
	Callout    CalloutID // Optional: any.
}

// AnyAction is the action mask of a FilterEnumTemplate that leaves no filter out.
const AnyAction fwp.Action = 0xFFFFFFFF
