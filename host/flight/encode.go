package flight

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/calloutd/calloutd/host/journal"
	"github.com/calloutd/calloutd/host/redirect"
)

// An encoder appends fields; what is zero is left out.
type encoder struct{ b []byte }

func (e *encoder) number(f protowire.Number, v uint64) {
	if v != 0 {
		e.b = protowire.AppendVarint(protowire.AppendTag(e.b, f, protowire.VarintType), v)
	}
}

func (e *encoder) text(f protowire.Number, s string) {
	if s != "" {
		e.b = protowire.AppendString(protowire.AppendTag(e.b, f, protowire.BytesType), s)
	}
}

func (e *encoder) bytes(f protowire.Number, b []byte) {
	if len(b) > 0 {
		e.b = protowire.AppendBytes(protowire.AppendTag(e.b, f, protowire.BytesType), b)
	}
}

// message appends one that is never left out.
func (e *encoder) message(f protowire.Number, write func(*encoder)) {
	e.b = protowire.AppendTag(e.b, f, protowire.BytesType)
	var inner encoder
	write(&inner)
	e.b = protowire.AppendBytes(e.b, inner.b)
}

func (e *encoder) addr(f protowire.Number, a netip.AddrPort) {
	if a.IsValid() {
		b, _ := a.MarshalBinary() // It never fails.
		e.bytes(f, b)
	}
}

func (h *Header) encode(e *encoder) {
	e.text(hdrPolicy, h.Policy)
	e.number(hdrProcess, uint64(h.Process))
	for _, id := range slices.Sorted(maps.Keys(h.Proxies)) {
		e.message(hdrProxy, func(e *encoder) {
			e.text(pxID, id)
			e.addr(pxAddr, h.Proxies[id])
		})
	}
	e.text(hdrSource, h.Source)
	e.number(hdrMasked, uint64(h.Masked))
}

func (n *Entry) encode(e *encoder) {
	if !n.Time.IsZero() {
		e.number(fTime, protowire.EncodeZigZag(n.Time.UnixNano()))
	}
	e.number(fProtocol, uint64(n.Protocol))
	e.number(fInbound, protowire.EncodeBool(n.Inbound))
	e.text(fProgram, n.Program)
	e.number(fProcess, uint64(n.Process))
	if n.UserKnown {
		e.number(fUser, uint64(n.User)+1)
	}
	for _, g := range n.Groups {
		e.number(fGroup, uint64(g)+1)
	}
	e.addr(fLocal, n.Local)
	e.addr(fRemote, n.Remote)
	e.text(fHost, n.Host)
	for _, h := range n.Records {
		b, _ := h.AppendBinary(nil) // It never fails.
		e.bytes(fHop, b)
	}
	if n.Outcome != nil {
		e.message(fOutcome, n.Outcome.encode)
	}
	for i := range min(len(n.Answers), maxAnswers) {
		before := len(e.b)
		e.message(fAnswer, func(e *encoder) { encodeAnswer(e, &n.Answers[i]) })
		if len(e.b) > maxEntry { // A callout says how much it is told.
			e.b = e.b[:before]
			return
		}
	}
}

// fits says why nobody could read the entry.
func (n *Entry) fits() error {
	if len(n.Records) > maxHops {
		return fmt.Errorf("flight: %w: %d redirect records, at most %d are read", redirect.ErrTooLarge, len(n.Records), maxHops)
	}
	for _, h := range n.Records {
		if _, err := h.EncodedLen(); err != nil {
			return fmt.Errorf("flight: %w", err)
		}
	}
	return nil
}

func (o *Outcome) encode(e *encoder) {
	e.text(oAction, o.Action)
	e.text(oDestination, o.Destination)
	e.text(oLayer, o.Layer)
	e.number(oFilter, o.Filter)
	e.text(oFilterName, o.FilterName)
	e.text(oCallout, o.Callout)
	e.text(oRule, o.Rule)
	e.text(oWhy, o.Why)
	e.bytes(oContext, o.Context)
	e.bytes(oRecord, o.Record)
}

func encodeAnswer(e *encoder, a *journal.Answer) {
	e.text(aCallout, a.Callout)
	e.text(aCall, a.Call)
	e.number(aResult, a.Result)
	e.bytes(aData, a.Data)
}
