package nftgateway

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// watch keeps the rules in force as interfaces change, and when somebody else takes them
// away, until ctx is done.
func (g *Gateway) watch(ctx context.Context) error {
	here, err := netns.Get()
	if err != nil {
		return fmt.Errorf("nftgateway: %w", err)
	}
	changed := make(chan struct{}, 1)
	groups := []uint{unix.RTNLGRP_LINK}
	if g.opts.Transparent {
		groups = append(groups, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE)
	}
	for protocol, groups := range map[int][]uint{unix.NETLINK_ROUTE: groups, unix.NETLINK_NETFILTER: {unix.NFNLGRP_NFTABLES}} {
		s, err := nl.Subscribe(protocol, groups...)
		if err != nil {
			return errors.Join(fmt.Errorf("nftgateway: listen for changes: %w", err), here.Close())
		}
		stop := context.AfterFunc(ctx, s.Close)
		g.wg.Go(func() {
			defer s.Close() // It may hear of ctx before that does.
			defer stop()
			g.hear(ctx, s, changed)
		})
	}
	g.wg.Go(func() {
		defer here.Close()
		runtime.LockOSThread() // Never unlocked: nobody else gets it.
		if now, err := netns.Get(); err == nil {
			if !now.Equal(here) {
				err = netns.Set(here)
			}
			_ = now.Close()
			if err != nil {
				g.opts.Logf("nftgateway: changes of interfaces and rules are not followed: %v", err)
				return
			}
		}
		var again <-chan time.Time
		for {
			select {
			case <-changed:
			case <-again:
			case <-ctx.Done():
				return
			}
			if again = nil; !g.follow() {
				again = time.After(time.Second) // What it lacks, such as descriptors, may be there then.
			}
		}
	})
	return nil
}

// hear says that something has changed, until ctx is done and s closed.
func (g *Gateway) hear(ctx context.Context, s *nl.NetlinkSocket, changed chan<- struct{}) {
	for {
		messages, _, err := s.Receive()
		switch {
		case ctx.Err() != nil:
			return
		case err == nil && !slices.ContainsFunc(messages, g.matters), errors.Is(err, unix.EINTR):
			continue
		case err != nil && !errors.Is(err, unix.ENOBUFS): // That is: more has happened than the socket takes.
			g.opts.Logf("nftgateway: changes of interfaces and rules are not heard of any more: %v", err)
			return
		}
		select {
		case changed <- struct{}{}:
		default:
		}
	}
}

// matters reports whether a message tells of an interface, of a rule for routes, of an address of
// this system, or that something of a rule set or the route of marked packets has gone. Other
// routes change often.
func (g *Gateway) matters(m syscall.NetlinkMessage) bool {
	switch {
	case m.Header.Type == unix.RTM_NEWROUTE, m.Header.Type == unix.RTM_DELROUTE:
		of := tableOf(m)
		return of == unix.RT_TABLE_LOCAL || m.Header.Type == unix.RTM_DELROUTE && of == g.opts.mark()
	case m.Header.Type>>8 != unix.NFNL_SUBSYS_NFTABLES:
		return true
	}
	switch m.Header.Type & 0xff {
	case unix.NFT_MSG_DELTABLE, unix.NFT_MSG_DELCHAIN, unix.NFT_MSG_DELRULE, unix.NFT_MSG_DELSET, unix.NFT_MSG_DELSETELEM:
		return true
	}
	return false
}

// tableOf is the table of a route.
func tableOf(m syscall.NetlinkMessage) uint32 {
	attrs, _ := syscall.ParseNetlinkRouteAttr(&m)
	for _, a := range attrs {
		if a.Attr.Type == unix.RTA_TABLE && len(a.Value) == 4 {
			return binary.NativeEndian.Uint32(a.Value)
		}
	}
	return 0
}

// follow makes the rules what they have to be, and reports whether they are.
func (g *Gateway) follow() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return true
	}
	now, err := g.opts.look(g.site)
	if err != nil {
		now = g.site // What is known of it; the rules have to be there all the same.
	}
	err = errors.Join(err, g.followRoutes(now.names))
	if !now.equal(g.site) {
		err = errors.Join(err, g.guard.cover(now))
	}
	if !now.equal(g.site) || !g.inForce() {
		failed := install(&g.opts, g.ports, now)
		if failed == nil {
			g.tellChange(now)
			g.site = now
		}
		err = errors.Join(err, failed)
	}
	if err != nil {
		g.opts.Logf("nftgateway: what comes in may not be decided any more: %v", err)
	}
	return err == nil
}

// tellChange says why the rules were made anew.
func (g *Gateway) tellChange(now *site) {
	switch {
	case now.equal(g.site):
		g.opts.Logf("nftgateway: somebody took rules of the table %s away, or put others there: they are there again, and %d packets that came in meanwhile were dropped", g.opts.tableName(), g.guard.dropped())
	case !slices.Equal(now.names, g.site.names):
		g.opts.Logf("nftgateway: what is decided comes in on %s", strings.Join(now.names, ", "))
		if err := g.opts.reachable(now.names); err != nil {
			g.opts.Logf("%v; until then nothing goes on from there", err)
		}
	}
}

func (g *Gateway) inForce() bool {
	for _, t := range tables(&g.opts, g.ports, g.site) {
		if !t.inForce() {
			return false
		}
	}
	return true
}
