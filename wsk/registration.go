package wsk

import (
	"net/netip"
	"sync"
	"time"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// A Process owns sockets: the security context of their binds, connects and
// redirect ioctls (WSK-SOCK-01).
type Process struct {
	ID        uint32
	AppID     string // The path of its program.
	UserID    uint32
	UserKnown bool // Whether UserID is known; zero is root.
}

// Options describe a provider.
type Options struct {
	ALE *ale.Enforcer // Required.
	// Process is the current process, the owner of a socket made without an
	// OwningProcess. Recommended.
	Process Process
	// Ready is closed when the provider may be captured. Optional: nil is at once.
	Ready <-chan struct{}

	// MaySetRecords tells whether a process may set redirect records, the
	// administrator's right of AMB-06. Optional: nil means every one may.
	MaySetRecords func(*Process) bool
	// StrictQueries lets a process query only what was redirected to it: its ID
	// must be the localRedirectTargetPID of the newest hop (AMB-06). Off, as
	// products exist that put a number of nobody there.
	StrictQueries bool

	// Addresses are the host's. Optional: those of its interfaces.
	Addresses func() ([]netip.Addr, error)

	Debug Debug
}

// A Provider is the WSK subsystem, to which clients register.
type Provider struct {
	opts Options
	late *late // nil: calls complete inline when they can
}

// NewProvider returns a provider. It panics when a required option is missing.
func NewProvider(o Options) *Provider {
	if o.ALE == nil {
		panic("wsk: Options.ALE is required")
	}
	return &Provider{opts: o, late: newLate(o.Debug)}
}

// MakeVersion is MAKE_WSK_VERSION.
func MakeVersion(major, minor uint8) uint16 { return uint16(major)<<8 | uint16(minor) }

// Version10 is WSK 1.0, the only version there is.
const Version10 uint16 = 0x0100

// Waiting times of CaptureProviderNPI; others are milliseconds.
const (
	NoWait       uint32 = 0          // WSK_NO_WAIT
	InfiniteWait uint32 = 0xFFFFFFFF // WSK_INFINITE_WAIT
)

// ClientNPI is WSK_CLIENT_NPI: what a client registers with.
type ClientNPI struct {
	ClientContext any
	Dispatch      *ClientDispatch // Required.
}

// ClientDispatch is WSK_CLIENT_DISPATCH.
type ClientDispatch struct {
	Version uint16 // Required: the version the client is written for.
	// ClientEvent is WskClientEvent. WSK 1.0 has no events to call it with.
	ClientEvent func(clientContext any, event uint32, information []byte) ntstatus.Status
}

// ProviderNPI is WSK_PROVIDER_NPI. The Client's methods are WSK_PROVIDER_DISPATCH.
type ProviderNPI struct {
	Client  *Client
	Version uint16 // WSK_PROVIDER_DISPATCH.Version
}

// ProviderCharacteristics is WSK_PROVIDER_CHARACTERISTICS.
type ProviderCharacteristics struct{ HighestVersion, LowestVersion uint16 }

// A Registration is WSK_REGISTRATION. The client owns it and must not copy it.
type Registration struct {
	mu       sync.Mutex
	provider *Provider
	client   *Client
	version  uint16
	asked    bool // a capture learned what the provider has
	gone     chan struct{}
}

// Register is WskRegister. Every success is paired with one Deregister of the
// same Registration (WSK-REG-01).
func (p *Provider) Register(npi *ClientNPI, r *Registration) ntstatus.Status {
	if p.opts.ALE == nil || npi == nil || npi.Dispatch == nil || r == nil {
		return ntstatus.InvalidParameter
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.provider != nil {
		return ntstatus.InvalidParameter
	}
	r.provider, r.version, r.gone = p, npi.Dispatch.Version, make(chan struct{})
	r.client = newClient(p)
	return ntstatus.Success
}

// CaptureProviderNPI is WskCaptureProviderNPI: it waits for the provider for
// wait milliseconds (WSK-REG-03). Every success is paired with one
// ReleaseProviderNPI; captures nest (WSK-REG-04).
func (r *Registration) CaptureProviderNPI(wait uint32, npi *ProviderNPI) ntstatus.Status {
	r.mu.Lock()
	p, gone := r.provider, r.gone
	r.mu.Unlock()
	if p == nil || npi == nil {
		return ntstatus.InvalidParameter
	}
	if !p.ready(wait, gone) {
		return ntstatus.DeviceNotReady
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if closed(r.gone) {
		return ntstatus.DeviceNotReady // WSK-REG-05
	}
	r.asked = true
	if r.version != Version10 {
		return ntstatus.NoInterface
	}
	r.client.capture()
	*npi = ProviderNPI{Client: r.client, Version: Version10}
	return ntstatus.Success
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// ready waits until clients may use the provider.
func (p *Provider) ready(wait uint32, gone <-chan struct{}) bool {
	if p.opts.Ready == nil || closed(p.opts.Ready) {
		return true
	}
	if wait == NoWait {
		return false
	}
	var timeout <-chan time.Time
	if wait != InfiniteWait {
		t := time.NewTimer(time.Duration(wait) * time.Millisecond)
		defer t.Stop()
		timeout = t.C
	}
	select {
	case <-p.opts.Ready:
		return true
	case <-timeout:
	case <-gone:
	}
	return false
}

// ReleaseProviderNPI is WskReleaseProviderNPI.
func (r *Registration) ReleaseProviderNPI() {
	r.mu.Lock()
	c := r.client
	r.mu.Unlock()
	if c != nil {
		c.release()
	}
}

// QueryProviderCharacteristics is WskQueryProviderCharacteristics, for a client
// whose capture was answered with success or STATUS_NOINTERFACE (WSK-REG-07).
func (r *Registration) QueryProviderCharacteristics(c *ProviderCharacteristics) ntstatus.Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case c == nil:
		return ntstatus.InvalidParameter
	case !r.asked:
		return ntstatus.DeviceNotReady
	}
	*c = ProviderCharacteristics{HighestVersion: Version10, LowestVersion: Version10}
	return ntstatus.Success
}

// Deregister is WskDeregister. Captures fail from now on, also those that wait.
// It returns when every capture is released, every call has ended and every
// socket is closed (WSK-REG-06).
func (r *Registration) Deregister() {
	r.mu.Lock()
	if r.provider == nil || closed(r.gone) {
		r.mu.Unlock()
		return
	}
	close(r.gone)
	c := r.client
	r.mu.Unlock()
	if v := r.provider.opts.Debug.Verifier; v != nil {
		idle := v.idle(c)
		defer v.leaks(idle)
	}
	c.drain()
}
