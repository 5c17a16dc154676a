package arbitrate

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// Inputs are what a decision can depend on: a bit for each condition field that
// some filter of the layer tests, and one for all that a callout can read besides.
type inputs uint64

const calloutInputs inputs = 1 << 63

func bit(c fwpm.ConditionID) inputs { return 1 << c }

// The fields that are made of one member of Incoming each. A field that is in none of
// them is in Other.
const (
	ofRemote     inputs = 1<<fwpm.ConditionIPRemoteAddress | 1<<fwpm.ConditionIPDestinationAddressType
	ofRemotePort inputs = 1 << fwpm.ConditionIPRemotePort
	ofLocal      inputs = 1<<fwpm.ConditionIPLocalAddress | 1<<fwpm.ConditionIPLocalAddressType
	ofLocalPort  inputs = 1 << fwpm.ConditionIPLocalPort
	ofProtocol   inputs = 1 << fwpm.ConditionIPProtocol
	ofFlags      inputs = 1 << fwpm.ConditionFlags
	ofDirection  inputs = 1 << fwpm.ConditionDirection
	ofApp        inputs = 1 << fwpm.ConditionALEAppID
	ofOriginal   inputs = 1 << fwpm.ConditionALEOriginalAppID
	ofUser       inputs = 1 << fwpm.ConditionALEUserID
	ofSystem     inputs = 1<<fwpm.ConditionCompartmentID | 1<<fwpm.ConditionReauthorizeReason

	ofMembers = ofRemote | ofRemotePort | ofLocal | ofLocalPort | ofProtocol | ofFlags | ofDirection | ofApp | ofOriginal | ofUser | ofSystem
	// everything is what a callout can read of a connection.
	everything = ofMembers | calloutInputs
	// shown are the fields of Other that connections commonly have.
	shown inputs = 1<<fwpm.ConditionPeerName | 1<<fwpm.ConditionInterfaceIndex
)

// TestsLocal reports whether filters of a layer test where connections come from.
func (p *Program) TestsLocal(id fwpm.LayerID) bool {
	l := p.layer(id)
	return l != nil && l.fields.inputs&ofLocal != 0
}

// hash mixes some inputs into h: connections that are equal in them have the same. Two
// words at a time, since each multiplication waits for the one before it.
func (f inputs) hash(h uint64, in *fwps.Incoming) uint64 {
	var small, addrs, user, app uint64
	if f&ofRemotePort != 0 {
		small = uint64(in.Remote.Port())
	}
	if f&ofLocalPort != 0 {
		small |= uint64(in.Local.Port()) << 16
	}
	if f&ofProtocol != 0 {
		small |= uint64(in.Protocol) << 32
	}
	if f&ofFlags != 0 {
		small ^= uint64(in.Flags&in.Layer.Flags()) << 24
	}
	if in.Flags&fwp.FlagIsReauthorize != 0 {
		small ^= 1 << 63
	}
	if f&calloutInputs != 0 {
		small ^= uint64(in.ProcessID) << 32
	}
	if f&ofRemote != 0 {
		h, addrs = foldAddr(h, in.Remote.Addr())
	}
	if f&ofLocal != 0 {
		var local uint64
		h, local = foldAddr(h, in.Local.Addr())
		addrs |= local << 32
	}
	if f&ofUser != 0 {
		user = uint64(in.UserID) + uint64(len(in.Groups))<<32
	}
	if f&ofApp != 0 {
		app = appHash(in.AppID)
	}
	if f&ofOriginal != 0 && in.OriginalAppID != "" && in.OriginalAppID != in.AppID {
		h = fold(h, appHash(in.OriginalAppID))
	}
	return fold(fold(h^small, addrs)^user, app)
}

// foldAddr mixes an IPv6 address into h; an IPv4 address fits in a word with another.
func foldAddr(h uint64, a netip.Addr) (mixed, v4 uint64) {
	if a.Is4() {
		b := a.As4()
		return h, uint64(binary.BigEndian.Uint32(b[:]))
	}
	hi, lo := words(a)
	return fold(h^hi, lo), 0
}

// others are the fields of Other that are looked at.
func (f inputs) others() inputs {
	if f&calloutInputs != 0 {
		f |= shown
	}
	return f &^ (ofMembers | calloutInputs)
}

// hashOther is hash for what is in Other. It is false for a value that is no number
// and no text, and for a callout that could read a field that is not among others.
func (f inputs) hashOther(h uint64, in *fwps.Incoming) (uint64, bool) {
	if len(in.Other) == 0 {
		return h, true
	}
	known := 0
	for left := f.others(); left != 0; left &= left - 1 {
		c := fwpm.ConditionID(bits.TrailingZeros64(uint64(left)))
		v, has := in.Other[c]
		if !has {
			continue
		}
		if v.Range != nil || v.SD != nil || v.Token != nil || v.Addr.IsValid() || v.Prefix.IsValid() {
			return 0, false
		}
		known++
		h = fold(h, v.Uint^uint64(c)<<56)
		if v.Text != "" {
			h = fold(h, appHash(v.Text))
		}
	}
	return h, f&calloutInputs == 0 || known == len(in.Other)
}

// equal reports whether two connections of one layer are equal in some inputs. Of
// both hash was ok.
func (f inputs) equal(a, b *fwps.Incoming) bool {
	switch {
	case f&ofRemote != 0 && a.Remote.Addr() != b.Remote.Addr(),
		f&ofRemotePort != 0 && (a.Remote.Port() != b.Remote.Port() || a.Remote.IsValid() != b.Remote.IsValid()),
		f&ofLocal != 0 && a.Local.Addr() != b.Local.Addr(),
		f&ofLocalPort != 0 && (a.Local.Port() != b.Local.Port() || a.Local.IsValid() != b.Local.IsValid()),
		f&ofProtocol != 0 && a.Protocol != b.Protocol,
		f&ofFlags != 0 && a.ConditionFlags() != b.ConditionFlags(),
		(a.Flags^b.Flags)&fwp.FlagIsReauthorize != 0, // Every step says so.
		f&ofDirection != 0 && a.Inbound != b.Inbound,
		f&ofApp != 0 && a.AppID != b.AppID,
		f&ofOriginal != 0 && a.OriginalAppID != b.OriginalAppID,
		f&ofUser != 0 && (a.UserID != b.UserID || a.UserKnown != b.UserKnown || !slices.Equal(a.Groups, b.Groups)),
		f&ofSystem != 0 && (a.CompartmentID != b.CompartmentID || a.ReauthorizeReason != b.ReauthorizeReason),
		f&ofNames != 0 && a.PeerNames != b.PeerNames && !equalNames(a.PeerNames, b.PeerNames),
		f&calloutInputs != 0 && !equalBesides(a, b):
		return false
	}
	return len(a.Other) == 0 && len(b.Other) == 0 || f.equalOther(a, b)
}

// ofNames are who reads all names of the peer.
const ofNames = 1<<fwpm.ConditionPeerName | calloutInputs

func equalNames(a, b *fwps.PeerNames) bool {
	return a != nil && b != nil && a.Forgotten == b.Forgotten && slices.Equal(a.Names, b.Names)
}

// equalBesides is about what callouts can read and no filter can test.
func equalBesides(a, b *fwps.Incoming) bool {
	return a.ProcessID == b.ProcessID && a.Flags == b.Flags && a.OriginalDestination == b.OriginalDestination &&
		a.LocalRedirectTargetPID == b.LocalRedirectTargetPID && a.HeaderInclude == b.HeaderInclude
}

func (f inputs) equalOther(a, b *fwps.Incoming) bool {
	for left := f.others(); left != 0; left &= left - 1 {
		c := fwpm.ConditionID(bits.TrailingZeros64(uint64(left)))
		x, hasX := a.Other[c]
		y, hasY := b.Other[c]
		if hasX != hasY || x.Type != y.Type || x.Uint != y.Uint || x.Text != y.Text {
			return false
		}
	}
	return f&calloutInputs == 0 || len(a.Other) == len(b.Other)
}

// copy is what equal looks at, in memory that nobody else has.
func (f inputs) copy(in *fwps.Incoming) (out fwps.Incoming) {
	out = *in
	out.Groups, out.Records, out.Flow, out.Pending, out.Other = slices.Clone(in.Groups), nil, nil, nil, nil
	if f&ofNames == 0 {
		out.PeerNames = nil
	}
	for left := f.others(); left != 0; left &= left - 1 {
		c := fwpm.ConditionID(bits.TrailingZeros64(uint64(left)))
		if v, has := in.Other[c]; has {
			if out.Other == nil {
				out.Other = map[fwpm.ConditionID]fwp.Value{}
			}
			out.Other[c] = v
		}
	}
	return out
}
