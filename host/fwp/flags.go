package fwp

import "strings"

// ConditionFlags is the value of FWPM_CONDITION_FLAGS: FWP_CONDITION_FLAG_*.
type ConditionFlags uint32

// The flags of fwptypes.h.
const (
	FlagIsLoopback                ConditionFlags = 0x00000001 // FWP_CONDITION_FLAG_IS_LOOPBACK
	FlagIsIpsecSecured            ConditionFlags = 0x00000002 // FWP_CONDITION_FLAG_IS_IPSEC_SECURED
	FlagIsReauthorize             ConditionFlags = 0x00000004 // FWP_CONDITION_FLAG_IS_REAUTHORIZE
	FlagIsWildcardBind            ConditionFlags = 0x00000008 // FWP_CONDITION_FLAG_IS_WILDCARD_BIND
	FlagIsRawEndpoint             ConditionFlags = 0x00000010 // FWP_CONDITION_FLAG_IS_RAW_ENDPOINT
	FlagIsImplicitBind            ConditionFlags = 0x00000200 // FWP_CONDITION_FLAG_IS_IMPLICIT_BIND
	FlagIsNameAppSpecified        ConditionFlags = 0x00004000 // FWP_CONDITION_FLAG_IS_NAME_APP_SPECIFIED
	FlagIsPromiscuous             ConditionFlags = 0x00008000 // FWP_CONDITION_FLAG_IS_PROMISCUOUS
	FlagIsAuthFw                  ConditionFlags = 0x00010000 // FWP_CONDITION_FLAG_IS_AUTH_FW
	FlagIsReclassify              ConditionFlags = 0x00020000 // FWP_CONDITION_FLAG_IS_RECLASSIFY
	FlagIsConnectionRedirected    ConditionFlags = 0x00100000 // FWP_CONDITION_FLAG_IS_CONNECTION_REDIRECTED
	FlagIsProxyConnection         ConditionFlags = 0x00200000 // FWP_CONDITION_FLAG_IS_PROXY_CONNECTION
	FlagIsAppcontainerLoopback    ConditionFlags = 0x00400000 // FWP_CONDITION_FLAG_IS_APPCONTAINER_LOOPBACK
	FlagIsNonAppcontainerLoopback ConditionFlags = 0x00800000 // FWP_CONDITION_FLAG_IS_NON_APPCONTAINER_LOOPBACK
	FlagIsHonoringPolicyAuthorize ConditionFlags = 0x02000000 // FWP_CONDITION_FLAG_IS_HONORING_POLICY_AUTHORIZE
)

var conditionFlagNames = []struct {
	flag ConditionFlags
	name string
}{
	{FlagIsLoopback, "IS_LOOPBACK"}, {FlagIsIpsecSecured, "IS_IPSEC_SECURED"}, {FlagIsReauthorize, "IS_REAUTHORIZE"},
	{FlagIsWildcardBind, "IS_WILDCARD_BIND"}, {FlagIsRawEndpoint, "IS_RAW_ENDPOINT"}, {FlagIsImplicitBind, "IS_IMPLICIT_BIND"},
	{FlagIsNameAppSpecified, "IS_NAME_APP_SPECIFIED"}, {FlagIsPromiscuous, "IS_PROMISCUOUS"}, {FlagIsAuthFw, "IS_AUTH_FW"},
	{FlagIsReclassify, "IS_RECLASSIFY"}, {FlagIsConnectionRedirected, "IS_CONNECTION_REDIRECTED"},
	{FlagIsProxyConnection, "IS_PROXY_CONNECTION"}, {FlagIsAppcontainerLoopback, "IS_APPCONTAINER_LOOPBACK"},
	{FlagIsNonAppcontainerLoopback, "IS_NON_APPCONTAINER_LOOPBACK"}, {FlagIsHonoringPolicyAuthorize, "IS_HONORING_POLICY_AUTHORIZE"},
}

// Names lists the flags that are set, by bit; bits without a name are left out.
func (f ConditionFlags) Names() []string {
	var names []string
	for _, n := range conditionFlagNames {
		if f&n.flag != 0 {
			names = append(names, n.name)
		}
	}
	return names
}

func (f ConditionFlags) String() string { return strings.Join(f.Names(), "|") }

// ParseConditionFlag returns the flag of a name that Names lists.
func ParseConditionFlag(name string) (ConditionFlags, bool) {
	for _, n := range conditionFlagNames {
		if n.name == name {
			return n.flag, true
		}
	}
	return 0, false
}

// ReauthorizeReason is the value of FWPM_CONDITION_REAUTHORIZE_REASON.
type ReauthorizeReason uint32

// The reasons that this engine gives.
const (
	ReasonPolicyChange       ReauthorizeReason = 0x0001 // FWP_CONDITION_REAUTHORIZE_REASON_POLICY_CHANGE
	ReasonClassifyCompletion ReauthorizeReason = 0x0010 // FWP_CONDITION_REAUTHORIZE_REASON_CLASSIFY_COMPLETION
	ReasonProxyHandleChanged ReauthorizeReason = 0x4000 // FWP_CONDITION_REAUTHORIZE_REASON_PROXY_HANDLE_CHANGED
)

var reauthorizeReasonNames = []struct {
	reason ReauthorizeReason
	name   string
}{{ReasonPolicyChange, "POLICY_CHANGE"}, {ReasonClassifyCompletion, "CLASSIFY_COMPLETION"}, {ReasonProxyHandleChanged, "PROXY_HANDLE_CHANGED"}}

// String lists the reasons by bit, without FWP_CONDITION_REAUTHORIZE_REASON_.
func (r ReauthorizeReason) String() string {
	var names []string
	for _, n := range reauthorizeReasonNames {
		if r&n.reason != 0 {
			names = append(names, n.name)
		}
	}
	return strings.Join(names, "|")
}
