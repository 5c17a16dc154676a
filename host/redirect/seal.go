package redirect

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"net/netip"
	"sync"
)

// Errors of a Sealer.
var (
	// ErrForged reports bytes that this engine did not seal, or that somebody changed.
	ErrForged = errors.New("redirect: not a record that this engine sealed")
	// ErrTooManyHops reports a chain longer than MaxHops.
	ErrTooManyHops = errors.New("redirect: more than 16 hops")
)

// The sealed form: a 16-byte header, 56 bytes a hop, an HMAC-SHA-256.
// Record and context stay in the store, so a large one does not break the
// habit of asking with 1 KiB (spec 8.4, RED-Q-09).
const (
	sealMagic   = 0x31525243 // "CRR1"
	sealVersion = 1
	sealHeader  = 16
	sealHop     = 56
)

// SealedLen is the size of the sealed form of n hops.
func SealedLen(n int) int { return sealHeader + n*sealHop + sha256.Size }

// A Sealer turns records into the opaque bytes an application carries from one
// socket to another, and back. Without the seal a process could write its own
// records and walk past every redirector (AMB-13). Each engine has its own key, so
// that records do not survive a restart (AMB-15), unless its host keeps the key.
type Sealer struct {
	key   [32]byte
	epoch uint32
	macs  sync.Pool // of *mac
}

// A mac is a keyed hash that is used again: a new one has to hash the key first.
type mac struct {
	hash.Hash
	sum [sha256.Size]byte
}

// NewSealer makes a Sealer with a fresh key.
func NewSealer() *Sealer { return NewSealKey().Sealer() }

// A SealKey is the secret of an engine that is known again after a restart. Who has
// it can write records that the engine takes for its own.
type SealKey [36]byte

// NewSealKey makes a key.
func NewSealKey() (k SealKey) {
	rand.Read(k[:]) // crypto/rand.Read never fails: it crashes the process first.
	return k
}

// Sealer makes a Sealer that opens what others of the key sealed.
func (k SealKey) Sealer() *Sealer {
	s := &Sealer{epoch: binary.LittleEndian.Uint32(k[32:])}
	copy(s.key[:], k[:])
	return s
}

// Handle is the redirect handle of a callout's name wherever the key is: nobody else
// can tell it, and it is none of those that an engine counts out.
func (k SealKey) Handle(name string) Handle {
	m := hmac.New(sha256.New, k[:])
	m.Write([]byte("redirect handle of ")) // No record begins so.
	m.Write([]byte(name))
	return Handle(binary.LittleEndian.Uint64(m.Sum(nil)) | 1<<63)
}

// Seal returns the sealed form of rs, the same bytes every time (RED-Q-10).
func (s *Sealer) Seal(rs Records) ([]byte, error) {
	if len(rs) > MaxHops {
		return nil, ErrTooManyHops
	}
	le := binary.LittleEndian
	b := make([]byte, 0, SealedLen(len(rs)))
	b = le.AppendUint32(b, sealMagic)
	b = le.AppendUint16(b, sealVersion)
	b = le.AppendUint16(b, uint16(len(rs)))
	b = le.AppendUint32(b, uint32(SealedLen(len(rs))))
	b = le.AppendUint32(b, s.epoch)
	for _, h := range rs {
		b = le.AppendUint64(b, uint64(h.Handle))
		b = le.AppendUint64(b, h.Serial)
		b = le.AppendUint64(b, h.FilterID)
		b = le.AppendUint32(b, h.TargetPID)
		b = le.AppendUint32(b, h.ProcessID)
		a := h.Original.Addr().As16()
		family := uint16(6)
		if h.Original.Addr().Is4() {
			family = 4
		}
		b = append(b, a[:]...)
		b = le.AppendUint16(b, h.Original.Port())
		b = le.AppendUint16(b, family)
		b = append(b, 0, 0, 0, 0)
	}
	sum := s.mac(b)
	return append(b, sum[:]...), nil
}

func (s *Sealer) mac(b []byte) (sum [sha256.Size]byte) {
	m, ok := s.macs.Get().(*mac)
	if !ok {
		m = &mac{Hash: hmac.New(sha256.New, s.key[:])}
	}
	m.Reset()
	m.Write(b)
	copy(sum[:], m.Sum(m.sum[:0]))
	s.macs.Put(m)
	return sum
}

// Open undoes Seal. Every hop that still lives in store gains a reference that
// the caller gives back with Release; a hop whose connections are gone comes
// back without its record and context (SC-44), and so does one in whose place the
// store has another. Errors wrap ErrForged, or are the store's.
func (s *Sealer) Open(b []byte, store Store) (Records, error) {
	le := binary.LittleEndian
	if len(b) < SealedLen(1) || len(b) > SealedLen(MaxHops) {
		return nil, fmt.Errorf("%w: %d bytes is no possible length", ErrForged, len(b))
	}
	body, sum := b[:len(b)-sha256.Size], b[len(b)-sha256.Size:]
	if should := s.mac(body); !hmac.Equal(sum, should[:]) {
		return nil, fmt.Errorf("%w: the seal does not fit", ErrForged)
	}
	n := int(le.Uint16(b[6:]))
	if le.Uint32(b) != sealMagic || le.Uint16(b[4:]) != sealVersion || int(le.Uint32(b[8:])) != len(b) || SealedLen(n) != len(b) {
		return nil, fmt.Errorf("%w: header does not fit", ErrForged)
	}
	rs := make(Records, 0, n)
	for i := range n {
		gone := unsealed(body[sealHeader+i*sealHop:])
		h, err := store.Acquire(gone.Serial)
		switch {
		case err == nil && gone.is(h):
			rs = append(rs, h)
		case err == nil, errors.Is(err, ErrNotFound): // The reference on another's hop is the caller's to give back too.
			h := gone
			rs = append(rs, &h)
		default:
			Release(store, rs)
			return nil, fmt.Errorf("redirect: the record store does not say what it has of hop %d: %w", gone.Serial, err)
		}
	}
	return rs, nil
}

// unsealed is what a seal itself says of a hop.
func unsealed(p []byte) Hop {
	le := binary.LittleEndian
	a := netip.AddrFrom16([16]byte(p[32:48]))
	if le.Uint16(p[50:]) == 4 {
		a = a.Unmap()
	}
	return Hop{Handle: Handle(le.Uint64(p)), Serial: le.Uint64(p[8:]), FilterID: le.Uint64(p[16:]),
		TargetPID: le.Uint32(p[24:]), ProcessID: le.Uint32(p[28:]), Original: netip.AddrPortFrom(a, le.Uint16(p[48:]))}
}

// is reports whether a store has this hop, and not another one under its serial, as in a
// process after the one that sealed it. What a promised hop does not know yet may differ
// (SC-48), and a seal has no zone.
func (h *Hop) is(other *Hop) bool {
	return other != nil && other.Serial == h.Serial && other.Handle == h.Handle && other.ProcessID == h.ProcessID &&
		other.Original.Port() == h.Original.Port() && other.Original.Addr().WithZone("") == h.Original.Addr()
}

// Acquire takes one reference on every hop of rs that still lives.
func Acquire(store Store, rs Records) {
	for _, h := range rs {
		// A hop that is gone stays gone: serials are never used again.
		_ = store.Retain(h.Serial)
	}
}

// Release gives one reference on every hop of rs back.
func Release(store Store, rs Records) {
	for _, h := range rs {
		_ = store.Release(h.Serial)
	}
}
