package fwpm

import (
	"net/netip"
	"time"

	"github.com/calloutd/calloutd/host/fwp"
)

// NetEventType is FWPM_NET_EVENT_TYPE, and above its range three of our own: WFP
// has no events for the redirect layers (AMB-45).
type NetEventType uint32

// The types of events that this engine gives (EVT-01).
const (
	NetEventClassifyDrop  NetEventType = 3 // FWPM_NET_EVENT_TYPE_CLASSIFY_DROP
	NetEventClassifyAllow NetEventType = 6 // FWPM_NET_EVENT_TYPE_CLASSIFY_ALLOW

	NetEventRedirectApplied NetEventType = 0x100
	NetEventRedirectRefused NetEventType = 0x101
	NetEventRedirectFailed  NetEventType = 0x102 // applied, but nobody is there
)

func (t NetEventType) String() string {
	switch t {
	case NetEventClassifyDrop:
		return "classify-drop"
	case NetEventClassifyAllow:
		return "classify-allow"
	case NetEventRedirectApplied:
		return "redirect-applied"
	case NetEventRedirectRefused:
		return "redirect-refused"
	case NetEventRedirectFailed:
		return "redirect-failed"
	}
	return "unknown net event"
}

// AuditID is the number of an event of the Windows security log (EVT-03).
type AuditID uint16

// The audits of the filtering platform.
const (
	AuditPacketDropped       AuditID = 5152
	AuditPacketVetoed        AuditID = 5153
	AuditListenPermitted     AuditID = 5154
	AuditListenBlocked       AuditID = 5155
	AuditConnectionPermitted AuditID = 5156
	AuditConnectionBlocked   AuditID = 5157
	AuditBindPermitted       AuditID = 5158
	AuditBindBlocked         AuditID = 5159
)

// A NetEvent is FWPM_NET_EVENT with FWPM_NET_EVENT_CLASSIFY_DROP or _ALLOW, or a
// redirect. What is not known is zero.
type NetEvent struct {
	Type    NetEventType
	Time    time.Time
	AuditID AuditID // 0: Windows writes no audit
	Layer   LayerID
	Filter  FilterID // that decided, 0: the layer's default (EVT-02)
	Callout CalloutID
	Rule    string // the rule that made the outcome final, and why
	Why     string

	// Of a classification.
	Protocol          uint8
	Inbound           bool // msFwpDirection
	Loopback          bool
	Local, Remote     netip.AddrPort
	AppID             string
	ProcessID         uint32
	UserID            uint32
	UserKnown         bool
	ReauthorizeReason fwp.ReauthorizeReason

	// Of a redirect: what was asked for, where the callout sent it, and why that
	// could not be connected to.
	Original, Target netip.AddrPort
	Err              error
}

// A NetEventRedirect is what became of a redirect (AMB-45). Its fields are those
// of host/ale's RedirectEvent, so that one converts into the other.
type NetEventRedirect struct {
	Layer    LayerID
	Applied  bool
	Rule     string // for a refusal, the rule that refused
	Why      string
	Original netip.AddrPort
	Target   netip.AddrPort
	Filter   FilterID
	Callout  CalloutID

	ProcessID uint32
	AppID     string
	Err       error // why Target could not be connected to
}

// NetEventKeyword is FWPM_NET_EVENT_KEYWORD_*: what is collected besides drops.
type NetEventKeyword uint32

// The keywords of fwpmtypes.h.
const (
	NetEventKeywordInboundMcast     NetEventKeyword = 0x01 // FWPM_NET_EVENT_KEYWORD_INBOUND_MCAST
	NetEventKeywordInboundBcast     NetEventKeyword = 0x02 // FWPM_NET_EVENT_KEYWORD_INBOUND_BCAST
	NetEventKeywordCapabilityDrop   NetEventKeyword = 0x04 // FWPM_NET_EVENT_KEYWORD_CAPABILITY_DROP: no such events here
	NetEventKeywordCapabilityAllow  NetEventKeyword = 0x08 // FWPM_NET_EVENT_KEYWORD_CAPABILITY_ALLOW: no such events here
	NetEventKeywordClassifyAllow    NetEventKeyword = 0x10 // FWPM_NET_EVENT_KEYWORD_CLASSIFY_ALLOW
	NetEventKeywordPortScanningDrop NetEventKeyword = 0x20 // FWPM_NET_EVENT_KEYWORD_PORT_SCANNING_DROP: no such events here
)

// EngineOption is FWPM_ENGINE_OPTION.
type EngineOption uint32

// The options that mean something here.
const (
	EngineCollectNetEvents         EngineOption = 0 // FWPM_ENGINE_COLLECT_NET_EVENTS: 1 (the default) or 0
	EngineNetEventMatchAnyKeywords EngineOption = 1 // FWPM_ENGINE_NET_EVENT_MATCH_ANY_KEYWORDS: NetEventKeyword bits, 0 by default
)

// LayerStatistics is FWPM_LAYER_STATISTICS: how often a layer was asked, and
// what came of it.
type LayerStatistics struct {
	Layer               LayerID
	ClassifyPermitCount uint64
	ClassifyBlockCount  uint64
	ClassifyVetoCount   uint64 // of the blocks (ARB-06)
}

// ClassifyCount is how often the layer was asked.
func (s LayerStatistics) ClassifyCount() uint64 { return s.ClassifyPermitCount + s.ClassifyBlockCount }
