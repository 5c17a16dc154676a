package nftgateway

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Without room in the connection tracking of the kernel nothing new comes in, and the kernel
// says so in its own log alone, if there. So its figures are looked at.

const lookEvery = 5 * time.Second // An entry stays for longer, mostly.

// A tracking is what the connection tracking of a network has.
type tracking struct {
	entries, most uint32
	dropped       uint32 // packets, mostly those that found no room
	forgotten     uint32 // connections without an answer, which others got the room of
}

// track asks what there is now.
func track(c *netlink.Conn) (now tracking, err error) {
	const statsCPU, stats = 4, 5 // IPCTNL_MSG_CT_GET_STATS_CPU, IPCTNL_MSG_CT_GET_STATS
	err = figures(c, stats, netlink.Acknowledge, func(a *netlink.AttributeDecoder) {
		const entries, most = 1, 2 // CTA_STATS_GLOBAL_
		switch a.Type() {
		case entries:
			now.entries = a.Uint32()
		case most:
			now.most = a.Uint32()
		}
	})
	return now, errors.Join(err, figures(c, statsCPU, netlink.Dump, func(a *netlink.AttributeDecoder) {
		const drop, earlyDrop = 10, 11 // CTA_STATS_
		switch a.Type() {
		case drop:
			now.dropped += a.Uint32()
		case earlyDrop:
			now.forgotten += a.Uint32()
		}
	}))
}

func figures(c *netlink.Conn, message netlink.HeaderType, flags netlink.HeaderFlags, each func(*netlink.AttributeDecoder)) error {
	header := []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0}
	answers, err := c.Execute(netlink.Message{Header: netlink.Header{Type: unix.NFNL_SUBSYS_CTNETLINK<<8 | message, Flags: netlink.Request | flags}, Data: header})
	if err != nil {
		return err
	}
	for _, m := range answers {
		if m.Header.Type == netlink.Error { // The acknowledgement. Without one the answer would not end: the kernel says that more parts follow.
			continue
		}
		a, err := netlink.NewAttributeDecoder(m.Data[min(len(header), len(m.Data)):])
		if err != nil {
			return err
		}
		a.ByteOrder = binary.BigEndian
		for a.Next() {
			each(a)
		}
		if err := a.Err(); err != nil {
			return err
		}
	}
	return nil
}

// scarce reports whether the room is used up, or will be.
func (t tracking) scarce() bool { return uint64(t.entries)*10 >= uint64(t.most)*9 && t.most > 0 }

func (t tracking) remedy() string {
	return fmt.Sprintf("as root, sysctl net.netfilter.nf_conntrack_max=%d (of a container: on its host), if no one opens more than he should", 2*uint64(t.most))
}

// since is what there is to tell after an earlier look; empty for nothing.
func (t tracking) since(before tracking) string {
	dropped, forgotten := t.dropped-before.dropped, t.forgotten-before.forgotten
	switch {
	case !t.scarce() && !before.scarce(): // Packets are dropped for other reasons, too.
		return ""
	case dropped > 0 || forgotten > 0:
		return fmt.Sprintf("connection tracking has no room for new connections (%d of %d): %d packets were dropped, and %d connections without an answer forgotten: %s",
			t.entries, t.most, dropped, forgotten, t.remedy())
	case t.scarce() && !before.scarce():
		return fmt.Sprintf("connection tracking has %d connections, and room for %d: when that is full new ones are lost: %s", t.entries, t.most, t.remedy())
	}
	return ""
}

// watchTracking tells of connection tracking that is full, until ctx is done.
func (g *Gateway) watchTracking(ctx context.Context) {
	blind := func(err error) { g.opts.Logf("nftgateway: whether connection tracking has room is not known: %v", err) }
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		blind(err)
		return
	}
	before, err := track(c)
	if err != nil {
		blind(errors.Join(err, c.Close()))
		return
	}
	g.wg.Go(func() {
		defer c.Close()
		again := time.NewTicker(lookEvery)
		defer again.Stop()
		for ended := false; !ended; {
			select {
			case <-again.C:
			case <-ctx.Done():
				ended = true
			}
			now, err := track(c)
			if err != nil {
				blind(err)
				return
			}
			if s := now.since(before); s != "" {
				g.opts.Logf("nftgateway: %s", s)
			}
			before = now
		}
	})
}
