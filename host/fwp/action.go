// Package fwp holds the words every other package speaks: the FWP_ names of
// fwptypes.h. It imports nothing of this module.
package fwp

import "fmt"

// Action is FWP_ACTION_TYPE: what a filter or a callout asks for (CO-CLS-05).
type Action uint32

// The action types of fwptypes.h.
const (
	ActionBlock              Action = 0x1001 // FWP_ACTION_BLOCK
	ActionPermit             Action = 0x1002 // FWP_ACTION_PERMIT
	ActionContinue           Action = 0x2006 // FWP_ACTION_CONTINUE
	ActionNone               Action = 0x0007 // FWP_ACTION_NONE
	ActionNoneNoMatch        Action = 0x0008 // FWP_ACTION_NONE_NO_MATCH
	ActionCalloutUnknown     Action = 0x4005 // FWP_ACTION_CALLOUT_UNKNOWN
	ActionCalloutTerminating Action = 0x5003 // FWP_ACTION_CALLOUT_TERMINATING
	ActionCalloutInspection  Action = 0x6004 // FWP_ACTION_CALLOUT_INSPECTION
)

// CallsOut reports whether a filter with this action asks a callout.
func (a Action) CallsOut() bool { return a&0x4000 != 0 }

var actionNames = map[Action]string{
	ActionBlock: "block", ActionPermit: "permit", ActionContinue: "continue",
	ActionNone: "none", ActionNoneNoMatch: "no-match",
	ActionCalloutUnknown:     "callout",
	ActionCalloutTerminating: "callout-terminating",
	ActionCalloutInspection:  "callout-inspection",
}

func (a Action) String() string {
	if s, ok := actionNames[a]; ok {
		return s
	}
	return fmt.Sprintf("Action(%#x)", uint32(a))
}
