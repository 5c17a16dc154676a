package nftgateway

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/enforce/internal/carry"
)

// remedyKernel helps when the kernel refuses.
const remedyKernel = "a kernel with nft_redir, nft_tproxy, nft_fib_inet, nft_reject_inet and nf_conntrack"

const roomName = "room in connection tracking"

// Probe asks the running kernel for what Start needs. It makes a table of its own
// with rules for an interface that there is not, and removes it at once.
func Probe() []enforce.Capability {
	cs := []enforce.Capability{
		{Name: "nftables with redirect", MinimumKernel: "5.12", Need: enforce.Required, Detail: "sends connections to calloutd"},
		{Name: "nftables with tproxy", MinimumKernel: "5.12", Need: enforce.Optional, Detail: "does so without address translation, and takes UDP (--transparent)"},
		{Name: "forwarding", Need: enforce.Optional, Detail: "answers of connections that come from elsewhere go through"},
		{Name: roomName, Need: enforce.Optional, Detail: "without it new connections are lost"},
	}
	cs = append(cs, carry.Probe(enforce.CommandGateway, descriptorsOfAFlow))
	remedy, room := probeRoom()
	errs := []error{probeRules(false), probeRules(true), forwarding(), room}
	for i, err := range errs { // The last one has looked for itself.
		cs[i].Command = enforce.CommandGateway
		cs[i].Found(err)
		switch {
		case err == nil:
		case i == 2:
			cs[i].Remedy = "as root, sysctl net.ipv4.ip_forward=1"
		case i == 3 && remedy != "":
			cs[i].Remedy = remedy
		case errors.Is(err, unix.EPERM):
			cs[i].Remedy = enforce.MoreRights("CAP_NET_ADMIN")
		default:
			cs[i].Remedy = remedyKernel
		}
	}
	return cs
}

func probeRules(transparent bool) error {
	o := Options{Interfaces: []string{"calloutd-probe"}, Name: fmt.Sprintf("probe_%d", os.Getpid()), Transparent: transparent}
	if c, err := nftables.New(); err != nil {
		return err
	} else if _, err := c.ListTables(); err != nil {
		return err
	}
	if err := install(&o, ports{tcp: families[uint16]{1, 1}}, &site{names: o.Interfaces}); err != nil {
		return err
	}
	return uninstall(&o)
}

func forwarding() error {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
	if err != nil {
		return err
	}
	if strings.TrimSpace(string(b)) != "1" {
		return errors.New("net.ipv4.ip_forward is 0")
	}
	return nil
}

// probeRoom looks whether connection tracking has room, and says what helps if it has none.
func probeRoom() (remedy string, err error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return "", err
	}
	defer c.Close()
	now, err := track(c)
	if err == nil && now.scarce() {
		return now.remedy(), fmt.Errorf("it has %d connections, and room for %d", now.entries, now.most)
	}
	return "", err
}
