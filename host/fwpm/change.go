package fwpm

// ChangeType is FWPM_CHANGE_TYPE.
type ChangeType uint32

// What can happen to an object (CHG-01).
const (
	ChangeAdd    ChangeType = 1 // FWPM_CHANGE_ADD
	ChangeDelete ChangeType = 2 // FWPM_CHANGE_DELETE
)

func (t ChangeType) String() string {
	switch t {
	case ChangeAdd:
		return "add"
	case ChangeDelete:
		return "delete"
	}
	return "unknown change"
}

// A Change is FWPM_FILTER_CHANGE and its likes: an object came or went.
type Change struct {
	Type   ChangeType
	Kind   Kind
	ID     string   // a filter's in decimal
	Filter FilterID // of a filter, else 0
}

// A Subscription is FWPM_FILTER_SUBSCRIPTION and its likes: which changes a
// subscriber hears of.
type Subscription struct {
	Kind           Kind                // Required.
	NotifyOnAdd    bool                // FWPM_SUBSCRIPTION_FLAG_NOTIFY_ON_ADD
	NotifyOnDelete bool                // FWPM_SUBSCRIPTION_FLAG_NOTIFY_ON_DELETE
	Template       EnumTemplate        // Optional. Not for filters.
	Filters        *FilterEnumTemplate // Optional. Filters only.
}
