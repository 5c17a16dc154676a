package policyfile

import (
	"net/netip"
	"strings"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
)

// elsewhere says how to write what is right at another place or in another firewall.
func (t valueType) elsewhere(s string) (hint, near string) {
	if _, err := descriptor(s); t.data == fwp.SecurityDescriptorType && err != nil {
		return " (" + err.Error() + ")", ""
	}
	switch {
	case t.bits && s == "IS_LOOPBACK":
		return "; at this layer loopback is IP_REMOTE_ADDRESS 127.0.0.0/8 and ::1", ""
	case t.bits && strings.Contains(s, "|"):
		return ", and several of them as a list such as [" + strings.ReplaceAll(s, "|", ", ") + "]", ""
	case strings.Contains(s, ","):
		return ", and several of them as a list such as [" + t.sample + ", " + t.last + "]", ""
	case strings.EqualFold(s, "any"), strings.EqualFold(s, "all"), s == "*":
		return "; without the condition it is any", ""
	case t.address:
		return addressElsewhere(s)
	}
	return "", ""
}

func addressElsewhere(s string) (hint, near string) {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return "; a port is IP_REMOTE_PORT or IP_LOCAL_PORT", ap.Addr().WithZone("").String()
	}
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return " without brackets and zone", a.WithZone("").String()
	}
	if p, ok := withMask(s); ok {
		return "", p.Masked().String()
	}
	switch {
	case strings.EqualFold(s, "localhost"):
		return "; this host is 127.0.0.0/8 and ::1", ""
	case strings.Contains(s, ".") && strings.ContainsAny(strings.ToLower(s), "ghijklmnopqrstuvwxyz"):
		return "; what addresses are called is PEER_NAME, at ALE_AUTH_CONNECT", ""
	}
	return "", ""
}

// withMask reads 10.0.0.0/255.0.0.0.
func withMask(s string) (netip.Prefix, bool) {
	addr, mask, _ := strings.Cut(s, "/")
	a, err1 := netip.ParseAddr(addr)
	m, err2 := netip.ParseAddr(mask)
	if err1 != nil || err2 != nil || !a.Is4() || !m.Is4() {
		return netip.Prefix{}, false
	}
	for bits := range 33 {
		all := netip.AddrFrom4([4]byte{255, 255, 255, 255})
		if p, _ := all.Prefix(bits); p.Addr() == m {
			return netip.PrefixFrom(a, bits), true
		}
	}
	return netip.Prefix{}, false
}

// having says which layers have a field.
func having(c fwpm.ConditionID) string {
	var layers []string
	for _, l := range fwpm.Layers() {
		if l.Offers(c) && !l.IsV6() {
			layers = append(layers, strings.TrimSuffix(l.String(), "_V4"))
		}
	}
	switch len(layers) {
	case 0:
		return "no layer has"
	case 1:
		return layers[0] + " has"
	}
	return strings.Join(layers, ", ") + " have"
}
