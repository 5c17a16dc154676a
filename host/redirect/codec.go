package redirect

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"unsafe"
)

// ErrCorrupt reports bytes that are no encoded hop.
var ErrCorrupt = errors.New("redirect: not an encoded hop")

// The encoded form of a hop, for stores that keep bytes: a fixed part of 48
// bytes, the three addresses (0, 4 or 16 bytes, a zone with its length before it),
// the three names, the record, the context. One hop has one encoding.
const (
	codecVersion = 1

	offHandle, offFilter, offTarget, offProcess = 8, 16, 24, 28
	offOriginalPort, offTargetPort              = 32, 34
	offVersion, offFamilies                     = 36, 37
	offLengths                                  = 38 // 5 of 16 bits
	codecFixed                                  = 48
)

// The families of an address, two bits each: the original's are the lowest, then the
// client's, then the target's.
const (
	familyNone uint8 = iota
	family4
	family6
	family6Zone
)

// EncodedLen is the length of the encoded form. ErrTooLarge says which part of
// the hop cannot be encoded.
func (h *Hop) EncodedLen() (int, error) {
	original, target, client := addrLen(h.Original.Addr()), addrLen(h.Target.Addr()), addrLen(h.Client)
	if max(len(h.Provider), len(h.Callout), len(h.AppID)) > maxName || max(len(h.Record), len(h.Context)) > MaxBlob || max(original, target, client) > 17+maxZone {
		return 0, h.tooLarge()
	}
	return codecFixed + original + target + client + len(h.Provider) + len(h.Callout) + len(h.AppID) + len(h.Record) + len(h.Context), nil
}

// The longest that the lengths in the encoded form can be of.
const maxName, maxZone = 1<<16 - 1, 1<<8 - 1

// tooLarge says which part is.
func (h *Hop) tooLarge() error {
	for _, part := range [...]struct {
		name       string
		size, most int
	}{
		{"provider", len(h.Provider), maxName}, {"callout", len(h.Callout), maxName}, {"application", len(h.AppID), maxName},
		{"record", len(h.Record), MaxBlob}, {"context", len(h.Context), MaxBlob},
		{"zone of the original address", len(h.Original.Addr().Zone()), maxZone}, {"zone of the target address", len(h.Target.Addr().Zone()), maxZone},
		{"zone of the client", len(h.Client.Zone()), maxZone},
	} {
		if part.size > part.most {
			return fmt.Errorf("%w: its %s has %d bytes, at most %d can be kept", ErrTooLarge, part.name, part.size, part.most)
		}
	}
	return ErrTooLarge
}

func addrLen(a netip.Addr) int {
	switch family(a) {
	case familyNone:
		return 0
	case family4:
		return 4
	case family6Zone:
		return 17 + len(a.Zone())
	}
	return 16
}

func family(a netip.Addr) uint8 {
	switch {
	case !a.IsValid():
		return familyNone
	case a.Is4():
		return family4
	case a.Zone() != "":
		return family6Zone
	}
	return family6
}

// AppendBinary implements encoding.BinaryAppender. The hop must be one that
// EncodedLen accepts.
func (h *Hop) AppendBinary(b []byte) ([]byte, error) {
	le := binary.LittleEndian
	b = le.AppendUint64(b, h.Serial)
	b = le.AppendUint64(b, uint64(h.Handle))
	b = le.AppendUint64(b, h.FilterID)
	b = le.AppendUint32(b, h.TargetPID)
	b = le.AppendUint32(b, h.ProcessID)
	b = le.AppendUint16(b, h.Original.Port())
	b = le.AppendUint16(b, h.Target.Port())
	b = append(b, codecVersion, family(h.Original.Addr())|family(h.Client)<<2|family(h.Target.Addr())<<4)
	b = le.AppendUint16(b, uint16(len(h.Provider)))
	b = le.AppendUint16(b, uint16(len(h.Callout)))
	b = le.AppendUint16(b, uint16(len(h.AppID)))
	b = le.AppendUint16(b, uint16(len(h.Record)))
	b = le.AppendUint16(b, uint16(len(h.Context)))
	b = appendAddr(b, h.Original.Addr())
	b = appendAddr(b, h.Target.Addr())
	b = appendAddr(b, h.Client)
	b = append(b, h.Provider...)
	b = append(b, h.Callout...)
	b = append(b, h.AppID...)
	b = append(b, h.Record...)
	return append(b, h.Context...), nil
}

func appendAddr(b []byte, a netip.Addr) []byte {
	switch family(a) {
	case familyNone:
		return b
	case family4:
		x := a.As4()
		return append(b, x[:]...)
	}
	x := a.As16()
	b = append(b, x[:]...)
	if z := a.Zone(); z != "" {
		b = append(append(b, uint8(len(z))), z...)
	}
	return b
}

// DecodeHop returns the hop that b is the encoding of. The hop keeps b: nobody
// may change it afterwards. Errors wrap ErrCorrupt and name the byte.
func DecodeHop(b []byte) (*Hop, error) {
	if len(b) < codecFixed {
		return nil, fmt.Errorf("%w: %d bytes, the fixed part has %d", ErrCorrupt, len(b), codecFixed)
	}
	if v := b[offVersion]; v != codecVersion {
		return nil, fmt.Errorf("%w: byte %d: version %d, this program reads %d", ErrCorrupt, offVersion, v, codecVersion)
	}
	le := binary.LittleEndian
	h := &Hop{Serial: le.Uint64(b), Handle: Handle(le.Uint64(b[offHandle:])), FilterID: le.Uint64(b[offFilter:]),
		TargetPID: le.Uint32(b[offTarget:]), ProcessID: le.Uint32(b[offProcess:])}
	r := reader{b: b, at: codecFixed}
	h.Original = netip.AddrPortFrom(r.addr(b[offFamilies]&3), le.Uint16(b[offOriginalPort:]))
	h.Target = netip.AddrPortFrom(r.addr(b[offFamilies]>>4), le.Uint16(b[offTargetPort:]))
	h.Client = r.addr(b[offFamilies] >> 2 & 3)
	var parts [5][]byte
	for i := range parts {
		parts[i] = r.next(int(le.Uint16(b[offLengths+2*i:])))
	}
	h.Provider, h.Callout, h.AppID = text(parts[0]), text(parts[1]), text(parts[2])
	h.Record, h.Context = parts[3], parts[4]
	switch {
	case r.why != "":
		return nil, fmt.Errorf("%w: byte %d: %s", ErrCorrupt, r.at, r.why)
	case r.at != len(b):
		return nil, fmt.Errorf("%w: byte %d: %d bytes too many", ErrCorrupt, r.at, len(b)-r.at)
	case len(h.Record) > MaxBlob || len(h.Context) > MaxBlob:
		return nil, fmt.Errorf("%w: byte %d: a blob of more than %d bytes", ErrCorrupt, offLengths+6, MaxBlob)
	}
	return h, nil
}

// text is b as a string without a copy: nobody changes b, and no slice that is
// handed out reaches into it.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// A reader takes b apart from at on; after the first error it gives nothing.
type reader struct {
	b   []byte
	at  int
	why string
}

// next returns the next n bytes, nil if n is zero or there are fewer.
func (r *reader) next(n int) []byte {
	if r.why != "" || n == 0 {
		return nil
	}
	if n > len(r.b)-r.at {
		r.why = fmt.Sprintf("%d bytes wanted, %d are left", n, len(r.b)-r.at)
		return nil
	}
	r.at += n
	return r.b[r.at-n : r.at : r.at]
}

func (r *reader) addr(family uint8) (a netip.Addr) {
	switch family {
	case familyNone:
	case family4:
		if b := r.next(4); b != nil {
			a = netip.AddrFrom4([4]byte(b))
		}
	case family6:
		if b := r.next(16); b != nil {
			a = netip.AddrFrom16([16]byte(b))
		}
	case family6Zone:
		if b := r.next(17); b != nil {
			if b[16] == 0 {
				r.why = "an empty zone"
			}
			a = netip.AddrFrom16([16]byte(b[:16])).WithZone(string(r.next(int(b[16]))))
		}
	default:
		if r.why == "" {
			r.why = fmt.Sprintf("address family %d is unknown", family)
		}
	}
	return a
}
