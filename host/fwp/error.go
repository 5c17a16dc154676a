package fwp

import "fmt"

// Error is an FWP_E_ code: what the management functions answer with.
type Error uint32

// The codes of the filtering platform that a policy can meet.
const (
	ErrCalloutNotFound        Error = 0x80320001 // FWP_E_CALLOUT_NOT_FOUND
	ErrConditionNotFound      Error = 0x80320002 // FWP_E_CONDITION_NOT_FOUND
	ErrFilterNotFound         Error = 0x80320003 // FWP_E_FILTER_NOT_FOUND
	ErrLayerNotFound          Error = 0x80320004 // FWP_E_LAYER_NOT_FOUND
	ErrProviderNotFound       Error = 0x80320005 // FWP_E_PROVIDER_NOT_FOUND
	ErrSublayerNotFound       Error = 0x80320007 // FWP_E_SUBLAYER_NOT_FOUND
	ErrNotFound               Error = 0x80320008 // FWP_E_NOT_FOUND
	ErrAlreadyExists          Error = 0x80320009 // FWP_E_ALREADY_EXISTS
	ErrInUse                  Error = 0x8032000A // FWP_E_IN_USE
	ErrIncompatibleLayer      Error = 0x80320014 // FWP_E_INCOMPATIBLE_LAYER
	ErrInvalidNetMask         Error = 0x8032001F // FWP_E_INVALID_NET_MASK
	ErrInvalidRange           Error = 0x80320020 // FWP_E_INVALID_RANGE
	ErrNullDisplayName        Error = 0x80320023 // FWP_E_NULL_DISPLAY_NAME
	ErrInvalidActionType      Error = 0x80320024 // FWP_E_INVALID_ACTION_TYPE
	ErrInvalidWeight          Error = 0x80320025 // FWP_E_INVALID_WEIGHT
	ErrMatchTypeMismatch      Error = 0x80320026 // FWP_E_MATCH_TYPE_MISMATCH
	ErrTypeMismatch           Error = 0x80320027 // FWP_E_TYPE_MISMATCH
	ErrDuplicateCondition     Error = 0x8032002A // FWP_E_DUPLICATE_CONDITION
	ErrActionIncompatibleWith Error = 0x8032002C // FWP_E_ACTION_INCOMPATIBLE_WITH_LAYER
	ErrNeverMatch             Error = 0x80320033 // FWP_E_NEVER_MATCH
	ErrTooManySublayers       Error = 0x80320036 // FWP_E_TOO_MANY_SUBLAYERS
)

var errorTexts = map[Error]string{
	ErrCalloutNotFound:        "callout not found",
	ErrConditionNotFound:      "the layer does not offer this condition field",
	ErrFilterNotFound:         "filter not found",
	ErrLayerNotFound:          "layer not found",
	ErrProviderNotFound:       "provider not found",
	ErrSublayerNotFound:       "sublayer not found",
	ErrNotFound:               "object not found",
	ErrAlreadyExists:          "an object with this key exists already",
	ErrInUse:                  "object is in use",
	ErrIncompatibleLayer:      "callout does not apply to this layer",
	ErrInvalidNetMask:         "network mask is not contiguous",
	ErrInvalidRange:           "range has its low end above its high end, or ends of two types",
	ErrNullDisplayName:        "display name is missing",
	ErrInvalidActionType:      "a filter cannot have this action",
	ErrInvalidWeight:          "weight is neither a 64-bit weight, a range 0-15 nor empty",
	ErrMatchTypeMismatch:      "match type does not fit the value's type",
	ErrTypeMismatch:           "value's type is not the field's",
	ErrDuplicateCondition:     "the same condition stands twice",
	ErrActionIncompatibleWith: "action does not fit the layer",
	ErrNeverMatch:             "filter can never match",
	ErrTooManySublayers:       "more than 65536 sublayers",
}

func (e Error) Error() string {
	if s, ok := errorTexts[e]; ok {
		return s
	}
	return fmt.Sprintf("fwp error %#08x", uint32(e))
}
