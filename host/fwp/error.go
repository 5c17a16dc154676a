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

var errorTexts = map[Error]string{
	ErrCalloutNotFound:           "callout not found",
	ErrConditionNotFound:         "the layer does not offer this condition field",
	ErrFilterNotFound:            "filter not found",
	ErrLayerNotFound:             "layer not found",
	ErrProviderNotFound:          "provider not found",
	ErrProviderContextNotFound:   "provider context not found",
	ErrSublayerNotFound:          "sublayer not found",
	ErrNotFound:                  "object not found",
	ErrAlreadyExists:             "an object with this key exists already",
	ErrInUse:                     "object is in use",
	ErrDynamicSessionInProgress:  "not allowed in a dynamic session",
	ErrWrongSession:              "the object belongs to another dynamic session",
	ErrNoTxnInProgress:           "no transaction is in progress",
	ErrTxnInProgress:             "a transaction is in progress already",
	ErrTxnAborted:                "the transaction was aborted: it held the lock too long",
	ErrSessionAborted:            "the session has ended",
	ErrIncompatibleTxn:           "a read-only transaction cannot change anything",
	ErrTimeout:                   "timed out waiting for the transaction lock",
	ErrNetEventsDisabled:         "net events are not collected",
	ErrIncompatibleLayer:         "callout does not apply to this layer",
	ErrLifetimeMismatch:          "the object refers to one that can go earlier",
	ErrBuiltinObject:             "a built-in object cannot be changed",
	ErrTooManyCallouts:           "more than 100,000 callouts",
	ErrInvalidEnumerator:         "the enumeration is closed or of another session",
	ErrInvalidFlags:              "these flags do not go together",
	ErrInvalidNetMask:            "network mask is not contiguous",
	ErrInvalidRange:              "range has its low end above its high end, or ends of two types",
	ErrNullDisplayName:           "display name is missing",
	ErrInvalidActionType:         "a filter cannot have this action",
	ErrInvalidWeight:             "weight is neither a 64-bit weight, a range 0-15 nor empty",
	ErrMatchTypeMismatch:         "match type does not fit the value's type",
	ErrTypeMismatch:              "value's type is not the field's",
	ErrDuplicateCondition:        "the same condition stands twice",
	ErrActionIncompatibleWith:    "action does not fit the layer",
	ErrNeverMatch:                "filter can never match",
	ErrInvalidParameter:          "invalid parameter",
	ErrTooManySublayers:          "more than 65536 sublayers",
	ErrCalloutNotificationFailed: "the callout refused the filter",
}

func (e Error) Error() string {
	if s, ok := errorTexts[e]; ok {
		return s
	}
	return fmt.Sprintf("fwp error %#08x", uint32(e))
}
