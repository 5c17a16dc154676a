package localproxy_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/wsk/localproxy"
	"github.com/calloutd/calloutd/wsk/wsknet"
)

// A duplex is an end of a connection: a *wsknet.Conn or a *net.TCPConn.
type duplex interface {
	net.Conn
	CloseWrite() error
}

// ways are how a connection by forward may end: what its client does and what the origin
// does at the same time.
var ways = []struct {
	name           string
	client, origin func(duplex) error
}{
	{"the client ends first", endsFirst, endsSecond},
	{"the origin ends first", endsSecond, endsFirst},
	{"both end at once", endsFirst, endsFirst},
	{"the client resets", resets, seesReset},
	{"the origin resets", seesReset, resets},
	{"both reset at once", resets, resets},
	{"the proxy stops", seesReset, seesReset},
}

func endsFirst(c duplex) error {
	if err := c.CloseWrite(); err != nil {
		return err
	}
	return endsSecond(c)
}

func endsSecond(c duplex) error {
	_, err := io.Copy(io.Discard, c)
	return errors.Join(err, c.Close())
}

// resets resets while bytes are on their way.
func resets(c duplex) error {
	_, _ = c.Write(make([]byte, 32<<10)) // It fails if the other end was faster.
	if c, ok := c.(*wsknet.Conn); ok {
		c.Abort()
		return nil
	}
	return errors.Join(c.(*net.TCPConn).SetLinger(0), c.Close())
}

func seesReset(c duplex) error {
	defer c.Close()
	if _, err := io.Copy(io.Discard, c); !errors.Is(err, syscall.ECONNRESET) {
		return fmt.Errorf("it should have been reset: %w", err)
	}
	return nil
}

// client tells the origin how both end, and does so once the origin is there.
func (w *world) client(to string, way int, there func()) error {
	made, err := (&wsknet.Dialer{Client: w.Client.Client}).DialContext(w.t.Context(), "tcp", to)
	if err != nil {
		return err
	}
	c := made.(*wsknet.Conn)
	_, err = c.Write([]byte{byte(way)})
	if err == nil {
		_, err = io.ReadFull(c, make([]byte, 1))
	}
	there()
	if err = errors.Join(err, ways[way].client(c)); err != nil {
		return fmt.Errorf("%s: the client: %w", ways[way].name, err)
	}
	return nil
}

// origin does as its client says, once it has said that it is there.
func origin(c *net.TCPConn) error {
	var way [1]byte
	if _, err := io.ReadFull(c, way[:]); err != nil {
		return err
	}
	if _, err := c.Write(way[:]); err != nil {
		return err
	}
	if err := ways[way[0]].origin(c); err != nil {
		return fmt.Errorf("%s: the origin: %w", ways[way[0]].name, err)
	}
	return nil
}

// However connections end, many at once, each end sees how, and no descriptor, record or
// goroutine is left.
func TestForwardEnds(t *testing.T) {
	before := sockets(t)
	t.Run("", forwardEnds)
	require.Subset(t, before, sockets(t))
}

// sockets are those that the process has, by the names that the system has for them. Its
// pipes do not count: they are kept.
func sockets(t *testing.T) (names []string) {
	const all = "/proc/self/fd/"
	files, err := os.ReadDir(all)
	require.NoError(t, err)
	for _, f := range files {
		if to, err := os.Readlink(all + f.Name()); err == nil && strings.HasPrefix(to, "socket:") { // What is closed meanwhile has none.
			names = append(names, to)
		}
	}
	return names
}

func forwardEnds(t *testing.T) {
	const each, stop = 16, 6 // connections; the way that waits for the proxy
	w := open(t)
	ended := make(chan error, 2*each*len(ways))
	to := serve(t, func(c *net.TCPConn) { ended <- origin(c) })
	p := w.start(localproxy.Forward, true)
	var there sync.WaitGroup
	begin := func(way int) {
		for range each {
			there.Add(1)
			go func() { ended <- w.client(to.String(), way, there.Done) }()
		}
	}
	all := func(n int) {
		for range 2 * each * n {
			require.NoError(t, <-ended)
		}
	}
	for way := range ways[:stop] {
		begin(way)
	}
	all(stop)
	begin(stop)
	there.Wait()
	p.Close()
	all(1)
	require.Zero(t, w.ALE.LiveHops())
}
