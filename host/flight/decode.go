package flight

import (
	"fmt"
	"math"
	"net/netip"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/calloutd/calloutd/host/journal"
	"github.com/calloutd/calloutd/host/redirect"
)

// A field is one of a message that is read.
type field struct {
	number protowire.Number
	v      uint64
	b      []byte
}

func (f *field) addr() (a netip.AddrPort, err error) {
	if err := a.UnmarshalBinary(f.b); err != nil {
		return a, fmt.Errorf("%w: an address of %d bytes", ErrCorrupt, len(f.b))
	}
	return a, nil
}

func (f *field) u32(plus uint64) (uint32, error) {
	if f.v-plus > math.MaxUint32 { // Below plus it is, too.
		return 0, fmt.Errorf("%w: field %d is %d, which is no number of 32 bits", ErrCorrupt, f.number, f.v)
	}
	return uint32(f.v - plus), nil
}

// each reads the fields of a message. Those of a type that this version does not
// know are left out.
func each(b []byte, read func(f field) error) error {
	for len(b) > 0 {
		number, t, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("%w: %v", ErrCorrupt, protowire.ParseError(n))
		}
		f := field{number: number}
		b = b[n:]
		switch t {
		case protowire.VarintType:
			f.v, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			f.b, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(number, t, b)
			f.number = 0
		}
		if n < 0 {
			return fmt.Errorf("%w: field %d: %v", ErrCorrupt, number, protowire.ParseError(n))
		}
		if err := read(f); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// decode reads into a header that is empty.
func (h *Header) decode(b []byte) error {
	return each(b, func(f field) (err error) {
		switch f.number {
		case hdrPolicy:
			h.Policy = string(f.b)
		case hdrProcess:
			h.Process, err = f.u32(0)
		case hdrProxy:
			err = h.proxy(f.b)
		case hdrSource:
			h.Source = string(f.b)
		case hdrMasked:
			h.Masked = Mask(f.v)
		}
		return err
	})
}

func (h *Header) proxy(b []byte) error {
	var id string
	var at netip.AddrPort
	err := each(b, func(f field) (err error) {
		switch f.number {
		case pxID:
			id = string(f.b)
		case pxAddr:
			at, err = f.addr()
		}
		return err
	})
	if h.Proxies == nil {
		h.Proxies = map[string]netip.AddrPort{}
	}
	h.Proxies[id] = at
	return err
}

// decode reads into an entry that is empty. Texts that come again and again are kept by names.
func (n *Entry) decode(b []byte, names *names) error {
	return each(b, func(f field) (err error) {
		switch f.number {
		case fTime:
			n.Time = time.Unix(0, protowire.DecodeZigZag(f.v))
		case fProtocol:
			n.Protocol = uint8(f.v)
		case fInbound:
			n.Inbound = protowire.DecodeBool(f.v)
		case fProgram:
			n.Program = names.get(f.b)
		case fProcess:
			n.Process, err = f.u32(0)
		case fUser:
			n.UserKnown = true
			n.User, err = f.u32(1)
		case fLocal:
			n.Local, err = f.addr()
		case fRemote:
			n.Remote, err = f.addr()
		case fHost:
			n.Host = names.get(f.b)
		case fOutcome:
			n.Outcome = new(Outcome)
			err = n.Outcome.decode(f.b, names)
		default:
			err = n.list(f, names)
		}
		return err
	})
}

// list reads the fields of which there can be many.
func (n *Entry) list(f field, names *names) error {
	switch f.number {
	case fGroup:
		g, err := f.u32(1)
		n.Groups = append(n.Groups, g)
		return err
	case fHop:
		if len(n.Records) == maxHops {
			return fmt.Errorf("%w: more than %d hops", ErrCorrupt, maxHops)
		}
		h, err := redirect.DecodeHop(append([]byte(nil), f.b...))
		if err != nil {
			return fmt.Errorf("%w: hop %d: %v", ErrCorrupt, len(n.Records)+1, err)
		}
		n.Records = append(n.Records, h)
	case fAnswer:
		if len(n.Answers) == maxAnswers {
			return fmt.Errorf("%w: more than %d answers", ErrCorrupt, maxAnswers)
		}
		a, err := decodeAnswer(f.b, names)
		n.Answers = append(n.Answers, a)
		return err
	}
	return nil
}

func (o *Outcome) decode(b []byte, names *names) error {
	return each(b, func(f field) error {
		switch f.number {
		case oFilter:
			o.Filter = f.v
		case oContext:
			o.Context = append([]byte(nil), f.b...)
		case oRecord:
			o.Record = append([]byte(nil), f.b...)
		default:
			if t := o.text(f.number); t != nil {
				*t = names.get(f.b)
			}
		}
		return nil
	})
}

func (o *Outcome) text(f protowire.Number) *string {
	switch f {
	case oAction:
		return &o.Action
	case oDestination:
		return &o.Destination
	case oLayer:
		return &o.Layer
	case oFilterName:
		return &o.FilterName
	case oCallout:
		return &o.Callout
	case oRule:
		return &o.Rule
	case oWhy:
		return &o.Why
	}
	return nil
}

func decodeAnswer(b []byte, names *names) (a journal.Answer, err error) {
	err = each(b, func(f field) error {
		switch f.number {
		case aCallout:
			a.Callout = names.get(f.b)
		case aCall:
			a.Call = names.get(f.b)
		case aResult:
			a.Result = f.v
		case aData:
			a.Data = append([]byte(nil), f.b...)
		}
		return nil
	})
	return a, err
}

// maxNames bounds the texts that a reader remembers.
const maxNames = 4096

// names makes equal texts one.
type names struct{ known map[string]string }

func (n *names) get(b []byte) string {
	if s, ok := n.known[string(b)]; ok {
		return s
	}
	s := string(b)
	if n.known == nil || len(n.known) == maxNames {
		n.known = map[string]string{}
	}
	n.known[s] = s
	return s
}
