package policyfile

import (
	"regexp"
	"slices"
	"strings"

	"github.com/calloutd/calloutd/host/fwpm"
)

// layerNames lists the names a filter's layer can have: every layer, and the
// name that the IPv4 and IPv6 ones have in common for both.
func layerNames() []string {
	var both []string
	for _, l := range layersOfAFamily() {
		if base, v4 := strings.CutSuffix(l, "_V4"); v4 {
			both = append(both, base)
		}
	}
	return append(both, layersOfAFamily()...)
}

// layersOfAFamily lists the layers by their own names.
func layersOfAFamily() []string {
	var names []string
	for _, l := range fwpm.Layers() {
		names = append(names, l.String())
	}
	return names
}

// parseLayer returns the layers of a name: one, or the IPv4 one and the IPv6 one.
func parseLayer(name string) []fwpm.LayerID {
	if l, ok := fwpm.ParseLayer(name); ok {
		return []fwpm.LayerID{l}
	}
	if v4, ok := fwpm.ParseLayer(name + "_V4"); ok {
		return []fwpm.LayerID{v4, v4.ForFamily(true)}
	}
	return nil
}

// fieldNames lists the condition fields that some layer offers.
func fieldNames() []string {
	var names []string
	for _, l := range fwpm.Layers() {
		for _, c := range l.Fields() {
			if !slices.Contains(names, c.String()) {
				names = append(names, c.String())
			}
		}
	}
	return names
}

func fieldsOf(l fwpm.LayerID) []string {
	var names []string
	for _, c := range l.Fields() {
		names = append(names, c.String())
	}
	return names
}

// seesMapped reports whether a layer is asked about ::ffff:a.b.c.d, which is
// how a dual-stack socket names an IPv4 destination (ALE-LAY-16), and an IPv4
// address that it binds and listens to (ALE-LAY-17).
func seesMapped(l fwpm.LayerID) bool {
	switch l {
	case fwpm.LayerALEConnectRedirectV6, fwpm.LayerALEBindRedirectV6, fwpm.LayerALEResourceAssignmentV6, fwpm.LayerALEAuthListenV6,
		fwpm.LayerALEResourceReleaseV6:
		return true
	}
	return false
}

// layerElsewhere says of a layer of WFP that is not one of ALE, by its name or by a key that is
// none of ours, what there is in its place.
func layerElsewhere(s string) string {
	s = strings.ToUpper(s)
	switch {
	case strings.HasSuffix(s, "_DISCARD"):
		return ": what was blocked is told by run --events, and in Go by Session.NetEventSubscribe"
	case isOf(s, "_IPSEC_", "_IKEEXT_", "_RPC_", "_KM_AUTHORIZATION", "_NAME_RESOLUTION_CACHE_"):
		return " that decides about connections: there is no IPsec, RPC and name cache here"
	case isOf(s, "_STREAM_", "_DATAGRAM_DATA_", "_TRANSPORT_", "_IPPACKET_", "_IPFORWARD_", "_ICMP_ERROR_", "_MAC_FRAME_", "_VSWITCH_"), unknownKey(s):
		return " that decides about connections, as ALE_AUTH_CONNECT and ALE_AUTH_RECV_ACCEPT: there are no packets and data here; who reads or changes data redirects to a proxy at ALE_CONNECT_REDIRECT"
	}
	return ""
}

// isOf reports whether a name, with or without its prefix, has one of some words.
func isOf(name string, words ...string) bool {
	return slices.ContainsFunc(words, func(w string) bool { return strings.Contains("_"+name+"_", w) })
}

var isKey = regexp.MustCompile(`^\{?[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}\}?$`).MatchString

// unknownKey reports whether a text is a GUID, and of nothing that we have.
func unknownKey(s string) bool {
	return isKey(s) && keys()[strings.ToLower(strings.Trim(s, "{}"))] == ""
}
