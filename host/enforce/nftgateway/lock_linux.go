package nftgateway

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// alone makes sure that no other process is the gateway of that name, until the socket is
// closed.
func alone(o *Options) (*netlink.Conn, error) {
	name := o.tableName() + ".lock"
	c, err := own(name)
	if errors.Is(err, unix.EPERM) && isThere(name) { // Else it is about rights.
		err = fmt.Errorf("nftgateway: another gateway with the table %s is running here; give this one another name", o.tableName())
	}
	return c, supported(err)
}

// turn is held by the one that looks whose the interfaces are and takes them, until it is closed.
// Others wait: it takes no longer than some messages to the kernel.
func turn(ctx context.Context) (*netlink.Conn, error) {
	const often, patience = 10 * time.Millisecond, 30 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		c, err := own("calloutd.turn")
		if !errors.Is(err, unix.EPERM) { // It is not about rights: another table is this gateway's already.
			return c, err
		}
		select {
		case <-time.After(often):
		case <-ctx.Done():
			return nil, fmt.Errorf("nftgateway: another gateway is being started: %w", err)
		}
	}
}

// own makes an empty table that the kernel keeps for a socket alone, until that is closed.
func own(table string) (*netlink.Conn, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("nftgateway: %w", err)
	}
	if err := claim(c, table, ownedTable, netlink.Excl); err != nil {
		return nil, fmt.Errorf("nftgateway: %w", errors.Join(err, c.Close()))
	}
	return c, nil
}

const (
	ownedTable      = 1 << 1 // NFT_TABLE_F_OWNER
	persistentTable = 1 << 2 // NFT_TABLE_F_PERSIST, since Linux 6.9
)

// claim makes an empty table that the kernel keeps for the socket, or without Excl takes one whose
// owner has gone. It is where the gateway's tables are, and takes the same right. The library makes
// none that has an owner.
func claim(c *netlink.Conn, table string, flags uint32, excl netlink.HeaderFlags) error {
	attributes, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_TABLE_NAME, Data: append([]byte(table), 0)},
		{Type: unix.NFTA_TABLE_FLAGS, Data: binary.BigEndian.AppendUint32(nil, flags)},
	})
	if err != nil {
		return err
	}
	batch := []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES}
	_, err = c.SendMessages([]netlink.Message{
		{Header: netlink.Header{Type: unix.NFNL_MSG_BATCH_BEGIN, Flags: netlink.Request}, Data: batch},
		{Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWTABLE, Flags: netlink.Request | netlink.Acknowledge | netlink.Create | excl},
			Data: append([]byte{unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0}, attributes...)},
		{Header: netlink.Header{Type: unix.NFNL_MSG_BATCH_END, Flags: netlink.Request}, Data: batch},
	})
	if err == nil {
		_, err = c.Receive()
	}
	return err
}

func isThere(table string) bool {
	c, err := nftables.New()
	if err != nil {
		return false
	}
	_, err = c.ListTableOfFamily(table, nftables.TableFamilyINet)
	return err == nil
}
