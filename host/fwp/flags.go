package fwp

// ConditionFlags is the value of FWPM_CONDITION_FLAGS.
type ConditionFlags uint32

// The flags the connect, accept and flow layers use.
const (
	FlagIsLoopback                ConditionFlags = 0x00000001 // FWP_CONDITION_FLAG_IS_LOOPBACK
	FlagIsReauthorize             ConditionFlags = 0x00000004 // FWP_CONDITION_FLAG_IS_REAUTHORIZE
	FlagIsWildcardBind            ConditionFlags = 0x00000008 // FWP_CONDITION_FLAG_IS_WILDCARD_BIND
	FlagIsConnectionRedirected    ConditionFlags = 0x00100000 // FWP_CONDITION_FLAG_IS_CONNECTION_REDIRECTED
	FlagIsProxyConnection         ConditionFlags = 0x00200000 // FWP_CONDITION_FLAG_IS_PROXY_CONNECTION
	FlagIsHonoringPolicyAuthorize ConditionFlags = 0x02000000 // FWP_CONDITION_FLAG_IS_HONORING_POLICY_AUTHORIZE
)
