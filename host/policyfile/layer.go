package policyfile

import (
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
