//go:build linux

package nftgateway

import (
	"encoding/binary"
	"fmt"
	"net"
	"regexp"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Where connection tracking is full nothing new comes in. Whoever runs the gateway is told by
// itself, and what helps; before it is full, too.
func TestConnectionTrackingThatIsFullIsTold(t *testing.T) {
	router(t, func(n *network) {
		origin := n.serve("origin")
		c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
		require.NoError(t, err)
		defer c.Close()
		told := make(chan string, 100)
		g, err := Start(t.Context(), Options{Interfaces: []string{"in"}, ALE: permitAll(), Logf: func(format string, args ...any) { told <- fmt.Sprintf(format, args...) }})
		require.NoError(t, err)
		defer g.Close()
		hears := func(want string) {
			t.Helper()
			for {
				select {
				case s := <-told:
					if regexp.MustCompile(want).MatchString(s) {
						return
					}
				case <-time.After(waitTime):
					t.Fatal("nobody is told: " + want)
				}
			}
		}
		free, err := track(c)
		require.NoError(t, err)
		require.NotZero(t, free.most)
		occupy(t, c, uint32(uint64(free.most)*95/100))
		hears(`^nftgateway: connection tracking has \d+ connections, and room for \d+: when that is full new ones are lost: as root, sysctl net\.netfilter\.nf_conntrack_max=\d+ `)
		got, err := get(n.dial(n.inside, "tcp4", origin))
		require.NoError(t, err)
		require.Equal(t, "origin", got)

		occupy(t, c, free.most)
		n.at(n.inside, func() {
			_, err := (&net.Dialer{Timeout: 100 * time.Millisecond}).Dial("tcp4", origin)
			var lost net.Error
			require.ErrorAs(t, err, &lost)
			require.True(t, lost.Timeout(), err)
		})
		hears(`^nftgateway: connection tracking has no room for new connections \(\d+ of \d+\): [1-9]\d* packets were dropped, and 0 connections without an answer forgotten: as root, sysctl`)
		for _, c := range Probe() {
			if c.Name == roomName {
				require.False(t, c.Supported)
			}
		}
	})
}

// occupy has connection tracking know so many connections, which it forgets for no other.
func occupy(t *testing.T, c *netlink.Conn, entries uint32) {
	const batch = 500
	own, err := netlink.Dial(unix.NETLINK_NETFILTER, nil) // No answer is read.
	require.NoError(t, err)
	defer own.Close()
	for {
		now, err := track(c)
		require.NoError(t, err)
		if now.entries >= entries {
			return
		}
		var messages []netlink.Message
		for i := range min(batch, entries-now.entries) {
			messages = append(messages, tracked(t, now.entries+i))
		}
		_, err = own.SendMessages(messages)
		require.NoError(t, err)
	}
}

// tracked has a flow known, another one for each number.
func tracked(t *testing.T, number uint32) netlink.Message {
	const ( // of linux/netfilter/nfnetlink_conntrack.h
		original, reply, status, timeout = 1, 2, 3, 7
		seenReplyAssuredConfirmed        = 2 | 4 | 8
	)
	from, to := binary.BigEndian.AppendUint32(nil, 10<<24|number), []byte{198, 18, 1, 2}
	tuple := func(source, destination []byte) func(*netlink.AttributeEncoder) error {
		return func(a *netlink.AttributeEncoder) error {
			a.Nested(1, func(a *netlink.AttributeEncoder) error { a.Bytes(1, source); a.Bytes(2, destination); return nil })
			a.Nested(2, func(a *netlink.AttributeEncoder) error {
				a.Uint8(1, unix.IPPROTO_UDP)
				a.Uint16(2, 7)
				a.Uint16(3, 7)
				return nil
			})
			return nil
		}
	}
	a := netlink.NewAttributeEncoder()
	a.ByteOrder = binary.BigEndian
	a.Nested(original, tuple(from, to))
	a.Nested(reply, tuple(to, from))
	a.Uint32(status, seenReplyAssuredConfirmed)
	a.Uint32(timeout, 3600)
	attributes, err := a.Encode()
	require.NoError(t, err)
	return netlink.Message{Header: netlink.Header{Type: unix.NFNL_SUBSYS_CTNETLINK << 8, Flags: netlink.Request | netlink.Create | netlink.Excl},
		Data: append([]byte{unix.AF_INET, unix.NFNETLINK_V0, 0, 0}, attributes...)}
}
