//go:build linux

package nftgateway

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/enforce/enforcetest"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect/memstore"
)

// Without descriptors nothing goes on undecided. A connection that cannot be carried for
// want of one is reset, with the reason; one that cannot be accepted waits.
func TestWithoutDescriptors(t *testing.T) {
	router(t, func(n *network) {
		origin := netip.MustParseAddrPort(n.serve("origin"))
		for _, transparent := range []bool{false, true} {
			var wants enforcetest.Wants
			var told atomic.Value
			restore := func() {}
			defer func() { restore() }()
			var once sync.Once
			engine := host.New(host.Options{OnDecision: func(*fwps.Incoming, *fwps.Decision) {
				once.Do(func() { restore = enforcetest.WithoutDescriptors() }) // It is accepted, and not yet carried.
			}})
			g, err := Start(t.Context(), Options{Interfaces: []string{"in"}, ALE: ale.New(ale.Options{Classifier: engine, Store: memstore.New(0)}), Transparent: transparent, Logf: wants.Logf,
				OnBlocked: func(d enforce.Denial) { told.Store(d.Err.Error()) }})
			require.NoError(t, err)
			first, second := n.socket(), n.socket()
			_, err = said(first, origin)
			require.ErrorIs(t, err, unix.ECONNRESET)
			require.Contains(t, told.Load(), "too many open files")
			restore()

			restore = enforcetest.WithoutDescriptors()
			heard := make(chan string, 1)
			go func() {
				word, err := said(second, origin)
				if err != nil {
					word = err.Error()
				}
				heard <- word
			}()
			wants.Patient(t)
			restore()
			require.Equal(t, "origin", <-heard)
			require.NoError(t, g.Close())
		}
	})
}

// Rules that somebody takes away while descriptors lack are put back when they do not.
func TestRulesAreBackWhenDescriptorsAre(t *testing.T) {
	router(t, func(n *network) {
		failed := make(chan struct{}, 1)
		g, err := Start(t.Context(), Options{Interfaces: []string{"in"}, ALE: permitAll(), Logf: func(format string, args ...any) {
			if strings.Contains(fmt.Sprintf(format, args...), "too many open files") {
				select {
				case failed <- struct{}{}:
				default:
				}
			}
		}})
		require.NoError(t, err)
		defer g.Close()
		c, err := nftables.New(nftables.AsLasting())
		require.NoError(t, err)
		defer func() { require.NoError(t, c.CloseLasting()) }()
		restore := enforcetest.WithoutDescriptors()
		defer func() { restore() }()
		c.FlushRuleset()
		require.NoError(t, c.Flush())
		select {
		case <-failed:
		case <-time.After(waitTime):
			t.Fatal("nobody is told that the rules cannot be put back")
		}
		restore()
		require.Eventually(t, func() bool { g.mu.Lock(); defer g.mu.Unlock(); return g.inForce() }, waitTime, pollTime)
	})
}

// socket is one inside, which waits a minute at most.
func (n *network) socket() (fd int) {
	n.at(n.inside, func() {
		var err error
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		require.NoError(n.t, err)
	})
	n.t.Cleanup(func() { unix.Close(fd) })
	for _, option := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		tv := unix.NsecToTimeval(time.Minute.Nanoseconds())
		require.NoError(n.t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, option, &tv))
	}
	return fd
}

// said connects a socket and reads a word. It takes no descriptor.
func said(fd int, to netip.AddrPort) (string, error) {
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}); err != nil {
		return "", err
	}
	b := make([]byte, 64)
	size, err := unix.Read(fd, b)
	return string(b[:max(size, 0)]), err
}
