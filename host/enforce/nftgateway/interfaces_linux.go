package nftgateway

import (
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
)

// comeIn refuses an interface on which nothing comes in as the rules see it. What a port of
// a bridge, a bond or a VRF receives comes in on that: the rules would match nothing, and
// all of it would go through undecided.
func (o *Options) comeIn() error {
	for _, name := range o.Interfaces {
		if _, err := net.InterfaceByName(name); err != nil {
			return fmt.Errorf("nftgateway: interface %s: %w", name, err)
		}
		link, err := netlink.LinkByName(name)
		if err != nil {
			return fmt.Errorf("nftgateway: interface %s: %w", name, err)
		}
		if of := link.Attrs().MasterIndex; of != 0 {
			master := fmt.Sprint("number ", of)
			if m, err := netlink.LinkByIndex(of); err == nil {
				master = m.Attrs().Name
			}
			return fmt.Errorf("nftgateway: interface %s is a port of %s, and what it receives comes in on that: name %[2]s", name, master)
		}
	}
	return nil
}
