package fwpm

import (
	"fmt"

	"github.com/calloutd/calloutd/host/fwp"
)

// ConditionID is a filtering condition field, FWPM_CONDITION_*.
type ConditionID uint8

type conditionInfo struct {
	name, guid string
	typ        fwp.DataType
	address    bool // its type depends on the layer's family
}

func (c ConditionID) info() *conditionInfo {
	if int(c) < len(conditions) {
		return &conditions[c]
	}
	return &conditions[0]
}

func (c ConditionID) String() string {
	if n := c.info().name; n != "" {
		return n
	}
	return fmt.Sprintf("ConditionID(%d)", uint8(c))
}

// GUID is the field's key in fwpmu.h.
func (c ConditionID) GUID() string { return c.info().guid }

// IsAddress reports whether the field holds an IP address.
func (c ConditionID) IsAddress() bool { return c.info().address }

// DataType is the type of the field's values at a layer.
func (c ConditionID) DataType(l LayerID) fwp.DataType {
	switch i := c.info(); {
	case !i.address:
		return i.typ
	case l.IsV6():
		return fwp.ByteArray16
	}
	return fwp.Uint32
}

// ParseCondition returns the field of a name that String prints.
func ParseCondition(name string) (ConditionID, bool) {
	for i := ConditionID(1); i < NumConditions; i++ {
		if conditions[i].name == name {
			return i, true
		}
	}
	return 0, false
}
