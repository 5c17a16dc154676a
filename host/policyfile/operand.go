package policyfile

import (
	"net/netip"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
)

// An operand is a value that has been read. Addresses wait for the layer's
// family; low and high are the ends of a range.
type operand struct {
	plain     fwp.Value
	prefix    netip.Prefix
	low, high netip.Addr
}

func (o operand) isAddress() bool { return o.prefix.IsValid() || o.low.IsValid() }
func (o operand) is4() bool       { return o.prefix.Addr().Is4() || o.low.Is4() }
func (o operand) isRange() bool   { return o.plain.Type == fwp.RangeType || o.high.IsValid() }

// parseAddress reads an address or a prefix, without zones: a layer sees none.
func parseAddress(s string) operand {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return operand{low: a}
	}
	if p, err := netip.ParsePrefix(s); err == nil {
		return operand{prefix: p}
	}
	return operand{}
}

// parsePrefix reads an address or a network of a set or a table. If it is not
// valid, near is what may have been meant: bits after the prefix would be lost,
// and a v4-mapped network would never match, since guests are asked about IPv4.
func parsePrefix(s string) (p netip.Prefix, near string) {
	o := parseAddress(s)
	p = o.prefix
	if o.low.IsValid() {
		p = netip.PrefixFrom(o.low, o.low.BitLen())
	}
	good := p.Masked()
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		good = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96).Masked()
	}
	if good != p {
		return netip.Prefix{}, good.String()
	}
	return p, ""
}

// How an operand fits a layer.
type fit int

const (
	never  fit = iota // No value at the layer can match.
	always            // Every value at the layer matches.
	fits
)

// value is the condition's value for a layer, which is one of two families if
// both: then the value may be one of the other family.
func (c condition) value(l fwpm.LayerID, both bool) (fwp.Value, fit) {
	o := c.operand
	switch {
	case !o.isAddress():
		return o.plain, fits
	case o.is4() != l.IsV6() || !both:
	case l.IsV6() && (seesMapped(l) || c.negative()):
		o = o.mapped()
	case c.negative():
		return fwp.Value{}, always
	default:
		return fwp.Value{}, never
	}
	switch {
	case o.high.IsValid():
		return fwp.Between(fwp.Addr(o.low), fwp.Addr(o.high)), fits
	case o.low.IsValid():
		return fwp.Addr(o.low), fits
	}
	return fwp.Mask(o.prefix), fits
}

// mapped is the operand as ::ffff:a.b.c.d.
func (o operand) mapped() operand {
	six := func(a netip.Addr) netip.Addr {
		if !a.IsValid() {
			return a
		}
		return netip.AddrFrom16(a.As16())
	}
	if o.prefix.IsValid() {
		return operand{prefix: netip.PrefixFrom(six(o.prefix.Addr()), o.prefix.Bits()+96)}
	}
	return operand{low: six(o.low), high: six(o.high)}
}
