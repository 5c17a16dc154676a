package policymodel

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// listed are the words of a list; Any is none.
func listed(v string) (out []string) {
	for _, w := range strings.Split(v, ",") {
		if w = strings.TrimSpace(w); w != "" && w != "Any" {
			out = append(out, w)
		}
	}
	return out
}

// isWord reports whether something is a name, such as LocalSubnet.
func isWord(s string) bool {
	return s != "" && !strings.ContainsAny(s, ".:/") && strings.IndexFunc(s, func(c rune) bool { return c < 'A' || c > 'z' || c > 'Z' && c < 'a' }) == -1 ||
		slices.Contains([]string{"RPC-EPMap", "LocalSubnet6", "Ply2Disc"}, s)
}

// address is an address, a network with its bits or its mask, or a range, as a
// policy writes it.
func address(s string) (any, bool) {
	if low, high, ok := strings.Cut(s, "-"); ok {
		a, err := netip.ParseAddr(low)
		b, err2 := netip.ParseAddr(high)
		if err != nil || err2 != nil || a.Zone() != "" || a.BitLen() != b.BitLen() || b.Less(a) {
			return "", false
		}
		return a.String() + "-" + b.WithZone("").String(), true
	}
	host, mask, ok := strings.Cut(s, "/")
	if ok && strings.Contains(mask, ".") {
		m, err := netip.ParseAddr(mask)
		n, contiguous := maskBits(m)
		if err != nil || !contiguous || strings.Contains(host, ":") {
			return "", false
		}
		s = fmt.Sprintf("%s/%d", host, n)
	}
	if !ok {
		a, err := netip.ParseAddr(s)
		return a.String(), err == nil && a.Zone() == "" && !a.Is4In6()
	}
	p, err := netip.ParsePrefix(s)
	return p.Masked().String(), err == nil && !p.Addr().Is4In6()
}

// maskBits is how many bits a mask such as 255.255.0.0 has, if they are its first.
func maskBits(m netip.Addr) (n int, ok bool) {
	if !m.Is4() {
		return 0, false
	}
	b := m.As4()
	v := binary.BigEndian.Uint32(b[:])
	n = bits.LeadingZeros32(^v)
	return n, v<<n == 0
}

func ports(s string) (any, bool) {
	low, high, ranged := strings.Cut(s, "-")
	a, err := strconv.ParseUint(low, 10, 16)
	if !ranged {
		return int(a), err == nil
	}
	b, err2 := strconv.ParseUint(high, 10, 16)
	return fmt.Sprintf("%d-%d", a, b), err == nil && err2 == nil && a <= b
}
