// Package abi is the guest ABI "callout v1" as numbers: the layout that host
// and guests share. It imports nothing, so guests can.
//
// All integers are little endian. The block is the guest's, static, 64-byte
// aligned; the host owns it between calls, the guest during one.
package abi

// Names of exports.
const (
	ExportMarker     = "callout_abi_v1"   // () -> i32: address of the block. Required.
	ExportClassify   = "callout_classify" // () -> i64: the packed answer. Required.
	ExportInit       = "callout_init"     // (len i32) -> i32: 0 is success.
	ExportNotify     = "callout_notify"   // (event i32) -> i32
	ExportIdle       = "callout_idle"     // (ms i32) -> i32: housekeeping.
	ExportCaps       = "callout_caps"     // () -> i64
	ExportInitialize = "_initialize"      // () : reactor start
	ExportMemory     = "memory"
	ImportModule     = "callout"
)

// Sizes of the block.
const (
	BlockSize      = 16 << 10
	BlockAlign     = 64
	RequestOffset  = 0
	ResponseOffset = 8192
	RequestHeader  = 128
	ResponseHeader = 64
	// InitMore is the top bit of callout_init's length: more bytes follow.
	InitMore = 1 << 31
	// InitChunk is the most configuration one callout_init call carries.
	InitChunk = ResponseOffset
)

// Limits of items. All items of a request but the context fit together, so
// that a record that was accepted can always be given back. The context is for
// the proxy: where it does not fit it is left out, with offset 0, its length
// still told, and its bit of ReqPresent clear.
const (
	MaxApp      = 4096
	MaxUser     = 256
	MaxHostname = 256
	MaxRecord   = ResponseOffset - RequestHeader - MaxApp - MaxUser - MaxHostname
	MaxContext  = 4096
	MaxReason   = 1024
)

// Offsets in the request header.
const (
	ReqSize           = 0  // u32
	ReqMinor          = 4  // u16
	ReqLayer          = 6  // u16
	ReqPresent        = 8  // u32
	ReqConditionFlags = 12 // u32
	ReqConnection     = 16 // u64
	ReqFilter         = 24 // u64
	ReqPID            = 32 // u32
	ReqUID            = 36 // u32
	ReqIPVersion      = 40 // u8: 4 or 6
	ReqProtocol       = 41 // u8
	ReqLocalPort      = 42 // u16
	ReqRemotePort     = 44 // u16
	ReqRedirectState  = 46 // u8
	ReqDirection      = 47 // u8: 0 outbound, 1 inbound
	ReqLocal          = 48 // u8[16], v4 as v4-mapped
	ReqRemote         = 64 // u8[16], v4 as v4-mapped
	ReqApp            = 80 // u32 offset, u32 length
	ReqUser           = 88
	ReqRecord         = 96
	ReqContext        = 104
	ReqMonotonic      = 112 // u64 ns
	ReqInterface      = 120 // u32
	ReqHostname       = 124 // u16 offset, u16 length
)

// Bits of ReqPresent.
const (
	PresentLocal = 1 << iota
	PresentRemote
	PresentPID
	PresentUID
	PresentApp
	PresentUser
	PresentRecord
	PresentContext
	PresentHostname
	PresentInterface
)

// Offsets in the response header, from ResponseOffset.
const (
	RespAction     = 0  // u32
	RespFlags      = 4  // u32
	RespPort       = 8  // u16
	RespIPVersion  = 10 // u8: 4 or 6
	RespTargetPID  = 12 // u32
	RespAddress    = 16 // u8[16], v4 as v4-mapped
	RespRecordLen  = 32 // u32
	RespContextLen = 36 // u32
	RespRecordOff  = 40 // u32, from the block's start
	RespContextOff = 44 // u32, from the block's start
	RespReason     = 48 // u32 offset from the block's start, u32 length
	RespCookie     = 56 // u64
)

// Actions. ActionInvalid is what an unwritten response reads as.
const (
	ActionInvalid    = 0
	ActionPermit     = 1
	ActionBlock      = 2
	ActionRedirect   = 3
	ActionContinue   = 4
	ActionPend       = 5
	ActionGuestError = 0xffff
)

// Flags of an answer.
const (
	FlagHard        = 1 // clear FWPS_RIGHT_ACTION_WRITE
	FlagKeepContext = 2
	FlagNoRecord    = 4 // redirect without a redirect handle: no record is made
	FlagCacheable   = 8
)

// Shifts of the packed answer that callout_classify returns: bits 0-15 action,
// 16-31 port, 32-47 record length, 48-63 flags.
const (
	PackPort   = 16
	PackRecord = 32
	PackFlags  = 48
)
