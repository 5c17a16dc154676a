package remote_test

import (
	"context"
	"net"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/wsk/remote"
)

// A query by the Go client, beside a bare round trip of packets of the same sizes
// over the same kind of socket, and one that passes the socket as well.
func BenchmarkRemote(b *testing.B) {
	s := newSite(b, remote.Options{Rate: 1 << 30})
	c := s.client()
	_, accepted := s.redirected()
	raw, err := accepted.SyscallConn()
	require.NoError(b, err)
	const records = 24
	b.Run("bare", func(b *testing.B) { bare(b, nil, records+redirect.SealedLen(1)) })
	b.Run("descriptor", func(b *testing.B) { bare(b, raw, records+redirect.SealedLen(1)) })
	for name, ask := range map[string]func(context.Context, syscall.Conn) ([]byte, error){"records": c.RedirectRecords, "context": c.RedirectContext} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := ask(b.Context(), accepted); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// bare sends a header there, with a descriptor if there is one, and gets as many
// bytes back as an answer has.
func bare(b *testing.B, about syscall.RawConn, answer int) {
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: b.TempDir() + "/bare", Net: "unixpacket"})
	require.NoError(b, err)
	defer l.Close()
	go func() {
		c, err := l.AcceptUnix()
		if err != nil {
			return
		}
		defer c.Close()
		in, oob, out := make([]byte, 64), make([]byte, unix.CmsgSpace(4)), make([]byte, answer)
		for {
			n, oobn, _, _, err := c.ReadMsgUnix(in, oob)
			if err != nil || n == 0 {
				return
			}
			if messages, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil && len(messages) == 1 {
				if fds, err := unix.ParseUnixRights(&messages[0]); err == nil {
					unix.Close(fds[0])
				}
			}
			if _, err := c.Write(out); err != nil {
				return
			}
		}
	}()
	c, err := net.DialUnix("unixpacket", nil, l.Addr().(*net.UnixAddr))
	require.NoError(b, err)
	defer c.Close()
	in, out := make([]byte, answer), make([]byte, 24)
	for b.Loop() {
		var err error
		if about == nil {
			_, err = c.Write(out)
		} else {
			cerr := about.Control(func(fd uintptr) { _, _, err = c.WriteMsgUnix(out, unix.UnixRights(int(fd)), nil) })
			require.NoError(b, cerr)
		}
		if err != nil {
			b.Fatal(err)
		}
		if _, err := c.Read(in); err != nil {
			b.Fatal(err)
		}
	}
}
