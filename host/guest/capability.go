package guest

import (
	"fmt"
	"math/bits"
	"strings"

	"github.com/calloutd/calloutd/sdk/abi"
)

// offered are the capabilities that this host has for a module.
func (o *ModuleOptions) offered() uint32 {
	caps := uint32(abi.CapLog | abi.CapRandom | abi.CapWall | abi.CapKV | abi.CapMetric)
	if len(o.Sets) > 0 {
		caps |= abi.CapSets
	}
	if len(o.Tables) > 0 {
		caps |= abi.CapTables
	}
	if o.Names != nil {
		caps |= abi.CapNames
	}
	return caps &^ o.Withhold
}

// negotiate asks which capabilities the guest wants: the low half is required,
// the high half optional.
func (i *instance) negotiate(needs uint32) error {
	answer, err := i.call(abi.ExportCaps)
	if err != nil {
		return err
	}
	required, optional, offered := uint32(answer), uint32(answer>>32), i.m.opts.offered()
	if missing := required &^ offered; missing != 0 {
		return as(ErrCapability, fmt.Errorf("the module requires the capability %s, which it is not granted%s", capNames(missing), howGranted(missing)))
	}
	if unasked := needs &^ (required | optional); unasked != 0 {
		return as(ErrCapability, fmt.Errorf("the module imports functions of the capability %s, which %s does not ask for: its source names it as required or optional", capNames(unasked), abi.ExportCaps))
	}
	i.granted = (required | optional) & offered
	return nil
}

// capNames names the bits of a set.
func capNames(caps uint32) string {
	var names []string
	for ; caps != 0; caps &= caps - 1 {
		n := bits.TrailingZeros32(caps)
		if n < len(abi.Capabilities) {
			names = append(names, abi.Capabilities[n])
		} else {
			names = append(names, fmt.Sprintf("bit %d", n))
		}
	}
	return strings.Join(names, ", ")
}

// howGranted says what gives a module the capabilities that no list names.
func howGranted(caps uint32) string {
	var ways []string
	for _, w := range []struct {
		bit uint32
		way string
	}{{abi.CapSets, "sets come with a set that the callout lists"}, {abi.CapTables, "tables come with a table that the callout lists"},
		{abi.CapNames, "names come with a proxy that learns them, of kind dns"}} {
		if caps&w.bit != 0 {
			ways = append(ways, w.way)
		}
	}
	if len(ways) == 0 {
		return ""
	}
	return ": " + strings.Join(ways, ", ")
}
