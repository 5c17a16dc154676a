package echo_test

import (
	"io"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	echo "github.com/calloutd/calloutd/examples/wsk-echo"
	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/redirect/memstore"
	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
	"github.com/calloutd/calloutd/wsk/wsktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Ten thousand connections in all, with the verifier on, in each way in which a
// provider may complete IRPs.
func TestEcho(t *testing.T) {
	for name, debug := range map[string]wsk.Debug{"inline": {}, "always pend": {AlwaysPend: true}, "random order": {RandomOrder: true}} {
		t.Run(name, func(t *testing.T) {
			debug.Verifier = wsktest.Verifier(t)
			provider := wsk.NewProvider(wsk.Options{ALE: ale.New(ale.Options{Classifier: host.New(host.Options{}), Store: memstore.New(0)}), Debug: debug})
			d, st := echo.DriverEntry(provider)
			require.Equal(t, ntstatus.Success, st)
			at := d.Addr().String()
			connections := 3400
			if testing.Short() {
				connections = 100
			}
			var clients sync.WaitGroup
			for part := range 10 {
				clients.Go(func() {
					for i := range connections / 10 {
						talk(t, at, (part+i)%10 == 0)
					}
				})
			}
			clients.Wait()
			d.Unload()
		})
	}
}

// talk has one connection's conversation. Most clients end theirs with a reset:
// the ports of the others are not free again for a while.
func talk(t *testing.T, at string, orderly bool) {
	c, err := net.Dial("tcp", at)
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	said, heard := []byte("hello, kernel"), make([]byte, 13)
	for range 2 {
		if _, err := c.Write(said); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadFull(c, heard); err != nil || string(heard) != string(said) {
			t.Errorf("heard %q, %v", heard, err)
		}
	}
	if !orderly {
		c.(*net.TCPConn).SetLinger(0)
		return
	}
	c.(*net.TCPConn).CloseWrite()
	if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
		t.Errorf("at the end: %q, %v", rest, err)
	}
}
