package remote

import (
	"encoding/binary"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// Only a socket that the kernel says is gone is taken for gone: whatever else it answers is an
// error, and the records of the connection stay.
func TestAnswersOfTheKernel(t *testing.T) {
	const state, timeWait, established = 1, 6, 1
	socket := func(st byte, inode uint32) []byte {
		b := make([]byte, 72) // struct inet_diag_msg
		b[state] = st
		binary.NativeEndian.PutUint32(b[68:], inode)
		return b
	}
	failed := func(errno syscall.Errno) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(-int32(errno))) }
	for _, c := range []struct {
		name  string
		kind  uint16
		data  []byte
		lives bool
		err   string
	}{
		{"a connection", 20, socket(established, 7), true, ""},
		{"one of no process", 20, socket(established, 0), false, ""},
		{"one that ends", 20, socket(timeWait, 7), false, ""},
		{"half an answer", 20, socket(established, 7)[:71], false, "remote: sock_diag answers a message of type 20 with 71 bytes"},
		{"none", syscall.NLMSG_ERROR, failed(syscall.ENOENT), false, ""},
		{"another one by now", syscall.NLMSG_ERROR, failed(syscall.ESTALE), false, ""},
		{"no right to ask", syscall.NLMSG_ERROR, failed(syscall.EPERM), false, "remote: sock_diag: operation not permitted"},
		{"half an error", syscall.NLMSG_ERROR, nil, false, "remote: sock_diag answers a message of type 2 with 0 bytes"},
		{"the end", syscall.NLMSG_DONE, failed(0), false, "remote: sock_diag answers a message of type 3 with 4 bytes"},
	} {
		lives, err := diagAnswer(&syscall.NetlinkMessage{Header: syscall.NlMsghdr{Type: c.kind}, Data: c.data})
		require.Equal(t, c.lives, lives, c.name)
		if c.err == "" {
			require.NoError(t, err, c.name)
		} else {
			require.EqualError(t, err, c.err, c.name)
		}
	}
}
