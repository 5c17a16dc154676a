package fwp

import "fmt"

// Error is an FWP_E_ code: what the management functions answer with.
type Error uint32

// The codes of the filtering platform that a policy can meet.
const (
	ErrCalloutNotFound           Error = 0x80320001 // FWP_E_CALLOUT_NOT_FOUND
	ErrConditionNotFound         Error = 0x80320002 // FWP_E_CONDITION_NOT_FOUND
	ErrFilterNotFound            Error = 0x80320003 // FWP_E_FILTER_NOT_FOUND
	ErrLayerNotFound             Error = 0x80320004 // FWP_E_LAYER_NOT_FOUND
	ErrProviderNotFound          Error = 0x80320005 // FWP_E_PROVIDER_NOT_FOUND
	ErrProviderContextNotFound   Error = 0x80320006 // FWP_E_PROVIDER_CONTEXT_NOT_FOUND
	ErrSublayerNotFound          Error = 0x80320007 // FWP_E_SUBLAYER_NOT_FOUND
	ErrNotFound                  Error = 0x80320008 // FWP_E_NOT_FOUND
	ErrAlreadyExists             Error = 0x80320009 // FWP_E_ALREADY_EXISTS
	ErrInUse                     Error = 0x8032000A // FWP_E_IN_USE
	ErrDynamicSessionInProgress  Error = 0x8032000B // FWP_E_DYNAMIC_SESSION_IN_PROGRESS
	ErrWrongSession              Error = 0x8032000C // FWP_E_WRONG_SESSION
	ErrNoTxnInProgress           Error = 0x8032000D // FWP_E_NO_TXN_IN_PROGRESS
	ErrTxnInProgress             Error = 0x8032000E // FWP_E_TXN_IN_PROGRESS
	ErrTxnAborted                Error = 0x8032000F // FWP_E_TXN_ABORTED
	ErrSessionAborted            Error = 0x80320010 // FWP_E_SESSION_ABORTED
	ErrIncompatibleTxn           Error = 0x80320011 // FWP_E_INCOMPATIBLE_TXN
	ErrTimeout                   Error = 0x80320012 // FWP_E_TIMEOUT
	ErrNetEventsDisabled         Error = 0x80320013 // FWP_E_NET_EVENTS_DISABLED
	ErrIncompatibleLayer         Error = 0x80320014 // FWP_E_INCOMPATIBLE_LAYER
	ErrLifetimeMismatch          Error = 0x80320016 // FWP_E_LIFETIME_MISMATCH
	ErrBuiltinObject             Error = 0x80320017 // FWP_E_BUILTIN_OBJECT
	ErrTooManyCallouts           Error = 0x80320018 // FWP_E_TOO_MANY_CALLOUTS
	ErrInvalidEnumerator         Error = 0x8032001D // FWP_E_INVALID_ENUMERATOR
	ErrInvalidFlags              Error = 0x8032001E // FWP_E_INVALID_FLAGS
	ErrInvalidNetMask            Error = 0x8032001F // FWP_E_INVALID_NET_MASK
	ErrInvalidRange              Error = 0x80320020 // FWP_E_INVALID_RANGE
	ErrNullDisplayName           Error = 0x80320023 // FWP_E_NULL_DISPLAY_NAME
	ErrInvalidActionType         Error = 0x80320024 // FWP_E_INVALID_ACTION_TYPE
	ErrInvalidWeight             Error = 0x80320025 // FWP_E_INVALID_WEIGHT
	ErrMatchTypeMismatch         Error = 0x80320026 // FWP_E_MATCH_TYPE_MISMATCH
	ErrTypeMismatch              Error = 0x80320027 // FWP_E_TYPE_MISMATCH
	ErrDuplicateCondition        Error = 0x8032002A // FWP_E_DUPLICATE_CONDITION
	ErrActionIncompatibleWith    Error = 0x8032002C // FWP_E_ACTION_INCOMPATIBLE_WITH_LAYER
	ErrNeverMatch                Error = 0x80320033 // FWP_E_NEVER_MATCH
	ErrInvalidParameter          Error = 0x80320035 // FWP_E_INVALID_PARAMETER
	ErrTooManySublayers          Error = 0x80320036 // FWP_E_TOO_MANY_SUBLAYERS
	ErrCalloutNotificationFailed Error = 0x80320037 // FWP_E_CALLOUT_NOTIFICATION_FAILED
)

var errorTexts = map[Error]struct{ name, text string }{
	ErrCalloutNotFound:           {"FWP_E_CALLOUT_NOT_FOUND", "callout not found"},
	ErrConditionNotFound:         {"FWP_E_CONDITION_NOT_FOUND", "the layer does not offer this condition field"},
	ErrFilterNotFound:            {"FWP_E_FILTER_NOT_FOUND", "filter not found"},
	ErrLayerNotFound:             {"FWP_E_LAYER_NOT_FOUND", "layer not found"},
	ErrProviderNotFound:          {"FWP_E_PROVIDER_NOT_FOUND", "provider not found"},
	ErrProviderContextNotFound:   {"FWP_E_PROVIDER_CONTEXT_NOT_FOUND", "provider context not found"},
	ErrSublayerNotFound:          {"FWP_E_SUBLAYER_NOT_FOUND", "sublayer not found"},
	ErrNotFound:                  {"FWP_E_NOT_FOUND", "object not found"},
	ErrAlreadyExists:             {"FWP_E_ALREADY_EXISTS", "an object with this key exists already"},
	ErrInUse:                     {"FWP_E_IN_USE", "object is in use"},
	ErrDynamicSessionInProgress:  {"FWP_E_DYNAMIC_SESSION_IN_PROGRESS", "not allowed in a dynamic session"},
	ErrWrongSession:              {"FWP_E_WRONG_SESSION", "the object belongs to another dynamic session"},
	ErrNoTxnInProgress:           {"FWP_E_NO_TXN_IN_PROGRESS", "no transaction is in progress"},
	ErrTxnInProgress:             {"FWP_E_TXN_IN_PROGRESS", "a transaction is in progress already"},
	ErrTxnAborted:                {"FWP_E_TXN_ABORTED", "the transaction was aborted: it held the lock too long"},
	ErrSessionAborted:            {"FWP_E_SESSION_ABORTED", "the session has ended"},
	ErrIncompatibleTxn:           {"FWP_E_INCOMPATIBLE_TXN", "a read-only transaction cannot change anything"},
	ErrTimeout:                   {"FWP_E_TIMEOUT", "timed out waiting for the transaction lock"},
	ErrNetEventsDisabled:         {"FWP_E_NET_EVENTS_DISABLED", "net events are not collected"},
	ErrIncompatibleLayer:         {"FWP_E_INCOMPATIBLE_LAYER", "callout does not apply to this layer"},
	ErrLifetimeMismatch:          {"FWP_E_LIFETIME_MISMATCH", "the object refers to one that can go earlier"},
	ErrBuiltinObject:             {"FWP_E_BUILTIN_OBJECT", "a built-in object cannot be changed"},
	ErrTooManyCallouts:           {"FWP_E_TOO_MANY_CALLOUTS", "more than 100,000 callouts"},
	ErrInvalidEnumerator:         {"FWP_E_INVALID_ENUMERATOR", "the enumeration is closed or of another session"},
	ErrInvalidFlags:              {"FWP_E_INVALID_FLAGS", "these flags do not go together"},
	ErrInvalidNetMask:            {"FWP_E_INVALID_NET_MASK", "network mask is not contiguous"},
	ErrInvalidRange:              {"FWP_E_INVALID_RANGE", "range has its low end above its high end, or ends of two types"},
	ErrNullDisplayName:           {"FWP_E_NULL_DISPLAY_NAME", "display name is missing"},
	ErrInvalidActionType:         {"FWP_E_INVALID_ACTION_TYPE", "a filter cannot have this action"},
	ErrInvalidWeight:             {"FWP_E_INVALID_WEIGHT", "weight is neither a 64-bit weight, a range 0-15 nor empty"},
	ErrMatchTypeMismatch:         {"FWP_E_MATCH_TYPE_MISMATCH", "match type does not fit the value's type"},
	ErrTypeMismatch:              {"FWP_E_TYPE_MISMATCH", "value's type is not the field's"},
	ErrDuplicateCondition:        {"FWP_E_DUPLICATE_CONDITION", "the same condition stands twice"},
	ErrActionIncompatibleWith:    {"FWP_E_ACTION_INCOMPATIBLE_WITH_LAYER", "action does not fit the layer"},
	ErrNeverMatch:                {"FWP_E_NEVER_MATCH", "filter can never match"},
	ErrInvalidParameter:          {"FWP_E_INVALID_PARAMETER", "invalid parameter"},
	ErrTooManySublayers:          {"FWP_E_TOO_MANY_SUBLAYERS", "more than 65536 sublayers"},
	ErrCalloutNotificationFailed: {"FWP_E_CALLOUT_NOTIFICATION_FAILED", "the callout refused the filter"},
}

func (e Error) Error() string {
	if t, ok := errorTexts[e]; ok {
		return t.text
	}
	return e.Name()
}

// Name is the code's name in fwptypes.h.
func (e Error) Name() string {
	if t, ok := errorTexts[e]; ok {
		return t.name
	}
	return fmt.Sprintf("FWP error %#08x", uint32(e))
}
