package nftgateway

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// alone makes sure that no other process is the gateway of that name, until the socket is
// closed: by an empty table that the kernel keeps for this socket alone. It is where the
// gateway's tables are, and takes the same right. The library makes none that has an owner.
func alone(o *Options) (*netlink.Conn, error) {
	const owned = 1 << 1 // NFT_TABLE_F_OWNER
	name := o.tableName() + ".lock"
	attributes, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_TABLE_NAME, Data: append([]byte(name), 0)},
		{Type: unix.NFTA_TABLE_FLAGS, Data: binary.BigEndian.AppendUint32(nil, owned)},
	})
	if err != nil {
		return nil, err
	}
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("nftgateway: %w", err)
	}
	batch := []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES}
	_, err = c.SendMessages([]netlink.Message{
		{Header: netlink.Header{Type: unix.NFNL_MSG_BATCH_BEGIN, Flags: netlink.Request}, Data: batch},
		{Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWTABLE, Flags: netlink.Request | netlink.Acknowledge | netlink.Create | netlink.Excl},
			Data: append([]byte{unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0}, attributes...)},
		{Header: netlink.Header{Type: unix.NFNL_MSG_BATCH_END, Flags: netlink.Request}, Data: batch},
	})
	if err == nil {
		_, err = c.Receive()
	}
	if err == nil {
		return c, nil
	}
	err = fmt.Errorf("nftgateway: %w", err)
	if errors.Is(err, unix.EPERM) && isThere(name) { // Else it is about rights.
		err = fmt.Errorf("nftgateway: another gateway with the table %s is running here; give this one another name", o.tableName())
	}
	return nil, errors.Join(supported(err), c.Close())
}

func isThere(table string) bool {
	c, err := nftables.New()
	if err != nil {
		return false
	}
	_, err = c.ListTableOfFamily(table, nftables.TableFamilyINet)
	return err == nil
}
