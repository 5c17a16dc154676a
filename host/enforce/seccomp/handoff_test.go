//go:build linux && (amd64 || arm64)

package seccomp

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/enforce/enforcetest"
	"github.com/calloutd/calloutd/host/enforce/handoff"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect/memstore"
)

func init() {
	// early: a second thread writes as soon as the socket takes it, while the first
	// one connects.
	programs["early"] = func(args []string) {
		runtime.LockOSThread()
		fd := newSocket(unix.AF_INET, unix.SOCK_STREAM)
		tid, wrote := unix.Gettid(), make(chan struct{})
		go func() {
			defer close(wrote)
			connecting(tid)
			for unix.Send(fd, []byte("x"), unix.MSG_NOSIGNAL) != nil {
			}
		}()
		say(name(sysConnect(fd, sockaddrOf(must(args[0])))))
		<-wrote
	}
}

// An upstream is a SOCKS proxy: what it is asked for arrives in asked, and before
// each answer it calls wait.
type upstream struct {
	addr  netip.AddrPort
	asked chan string
}

func socksUpstream(t *testing.T, reply byte, wait func(c net.Conn)) upstream {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	u := upstream{l.Addr().(*net.TCPAddr).AddrPort(), make(chan string, 16)}
	var serving sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() { l.Close(); cancel(); serving.Wait() })
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close()
				defer context.AfterFunc(ctx, func() { c.Close() })()
				b := make([]byte, 10)
				if _, err := io.ReadFull(c, b[:3]); err != nil {
					return
				}
				wait(c)
				_, _ = c.Write([]byte{5, 0})
				if _, err := io.ReadFull(c, b); err != nil {
					u.asked <- err.Error()
					return
				}
				wait(c)
				u.asked <- netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), uint16(b[8])<<8|uint16(b[9])).String()
				_, _ = c.Write([]byte{5, reply, 0, 1, 0, 0, 0, 0, 0, 0})
				if reply == 0 {
					_, _ = c.Write([]byte("proxy"))
				}
				_, _ = io.Copy(io.Discard, c)
			})
		}
	})
	return u
}

func atOnce(net.Conn) {}

// handedTo is the options for a program that is redirected to a SOCKS proxy.
func handedTo(u netip.AddrPort, told *[]error) Options {
	var mu sync.Mutex
	e := ale.New(ale.Options{Classifier: policy(func(fwps.Incoming) netip.AddrPort { return u }), Store: memstore.New(0), BlockAtRedirect: true, OnRedirect: func(ev ale.RedirectEvent) {
		mu.Lock()
		defer mu.Unlock()
		if ev.Err != nil && told != nil {
			*told = append(*told, ev.Err)
		}
	}})
	return Options{ALE: e, Handoff: handoff.Only(u, &handoff.Proxy{Kind: handoff.SOCKS5}), HandoffTime: time.Minute}
}

// The program's connect returns when the proxy has taken over, with what the
// destination says first left for it to read.
func TestHandOff(t *testing.T) {
	for _, isolate := range []bool{false, true} {
		u := socksUpstream(t, 0, atOnce)
		opts := handedTo(u.addr, nil)
		if opts.Isolate = isolate; isolate {
			need(t, enforce.UserNS)
		}
		out, _ := supervise(t, opts, helper("dial", test4))
		require.Equal(t, "ok proxy\n", out)
		require.Equal(t, test4, <-u.asked)

		out, _ = supervise(t, opts, helper("nonblocking", test4))
		require.Equal(t, "EINPROGRESS\nproxy\nok\nEISCONN\n", out, "as any connect that does not wait")
		require.Equal(t, test4, <-u.asked)
	}
}

// What a proxy refuses the program is told by an errno and the supervisor by a
// reason; the socket is as new.
func TestHandOffRefused(t *testing.T) {
	for reply, want := range map[byte]struct{ errno, why string }{
		5:  {"ECONNREFUSED", "the socks5 proxy was refused by the destination"},
		4:  {"EHOSTUNREACH", "the socks5 proxy cannot reach the host"},
		3:  {"ENETUNREACH", "the socks5 proxy cannot reach the network"},
		6:  {"ETIMEDOUT", "the socks5 proxy found the destination too far away (TTL expired)"},
		2:  {"EACCES", "the socks5 proxy does not allow it by its rules"},
		99: {"ECONNREFUSED", "the socks5 proxy failed (reply 99)"},
	} {
		var told []error
		u := socksUpstream(t, reply, atOnce)
		out, _ := supervise(t, handedTo(u.addr, &told), helper("again", test4, test4))
		require.Equal(t, want.errno+" \nok\n"+want.errno+" \nok\n", out)
		require.Len(t, told, 2)
		require.EqualError(t, told[0], want.why)
	}
}

func TestHandOffTimesOut(t *testing.T) {
	hang := make(chan struct{})
	u := socksUpstream(t, 0, func(net.Conn) { <-hang })
	t.Cleanup(func() { close(hang) })
	var told []error
	opts := handedTo(u.addr, &told)
	opts.HandoffTime = 50 * time.Millisecond
	out, _ := supervise(t, opts, helper("dial", test4))
	require.Equal(t, "ETIMEDOUT \n", out)
	require.EqualError(t, told[0], "the socks5 proxy did not answer in time")
}

func TestHandOffToNobody(t *testing.T) {
	var told []error
	out, _ := supervise(t, handedTo(vacant(t), &told), helper("dial", test4))
	require.Equal(t, "ECONNREFUSED \n", out)
	require.EqualError(t, told[0], "connection refused")
}

// A program that writes ahead of the introduction could introduce itself: its
// connection is refused.
func TestHandOffWrittenEarly(t *testing.T) {
	var told []error
	var once sync.Once
	u := socksUpstream(t, 0, func(c net.Conn) { once.Do(func() { _, _ = c.Read(make([]byte, 1)) }) })
	out, _ := supervise(t, handedTo(u.addr, &told), helper("early", test4))
	require.Equal(t, "ECONNABORTED\n", out)
	require.EqualError(t, told[0], "the program wrote 1 bytes to the proxy before it was connected")
}

// A program that is killed meanwhile takes nobody with it.
func TestHandOffKilled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	u := socksUpstream(t, 0, func(c net.Conn) {
		cancel()
		_, _ = c.Read(make([]byte, 1)) // until it is gone
	})
	need(t)
	_, err := Run(ctx, handedTo(u.addr, nil), helper("dial", test4))
	require.ErrorIs(t, err, context.Canceled)
}

// Signals with a handler wait until the proxy has taken over.
func TestHandOffSignal(t *testing.T) {
	u := socksUpstream(t, 0, func(net.Conn) { time.Sleep(20 * time.Millisecond) }) // a slow proxy
	out, _ := supervise(t, handedTo(u.addr, nil), helper("storm", test4))
	require.Equal(t, "5\n", out)
}

// Datagrams are handed over to SOCKS proxies only, and to those that take them:
// TestStrangerDatagrams of cmd/calloutd has one.
func TestHandOffOfDatagrams(t *testing.T) {
	for why, p := range map[string]handoff.Proxy{
		"the http-connect proxy takes connections only":                 {Kind: handoff.HTTPConnect},
		"the socks5 proxy did not say where datagrams go":               {Kind: handoff.SOCKS5},
		"the socks5 proxy takes names and passwords of up to 255 bytes": {Kind: handoff.SOCKS5, User: strings.Repeat("x", 256)},
	} {
		handsDatagrams(t, &p, why)
	}
}

func handsDatagrams(t *testing.T, p *handoff.Proxy, why string) {
	u := socksUpstream(t, 0, atOnce)
	var denied []enforce.Denial
	opts := handedTo(u.addr, nil)
	opts.Handoff = handoff.Only(u.addr, p)
	opts.OnBlocked = func(d enforce.Denial) { denied = append(denied, d) }
	out, _ := supervise(t, opts, exec.Command(enforcetest.Tool(t, "python3"), "-c", `
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for f in (lambda: s.sendto(b"x", ("203.0.113.10", 80)), lambda: s.connect(("203.0.113.10", 80))):
    try: f()
    except PermissionError: print("refused")`))
	require.Equal(t, "refused\nrefused\n", out)
	require.Len(t, denied, 2)
	require.EqualError(t, denied[0].Err, why)
}

// A PROXY protocol proxy is told about the redirect as well: the sealed records,
// which this ALE opens, and the callout's context.
func TestHandOffTellsTheRecords(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	u := l.Addr().(*net.TCPAddr).AddrPort()
	header := make(chan []byte, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		b := make([]byte, 16)
		_, _ = io.ReadFull(c, b)
		rest := make([]byte, binary.BigEndian.Uint16(b[14:]))
		_, _ = io.ReadFull(c, rest)
		header <- append(b, rest...)
		_, _ = c.Write([]byte("proxy"))
	}()
	e := redirecting(t, u)
	opts := Options{ALE: e, Handoff: handoff.Only(u, &handoff.Proxy{Kind: handoff.ProxyProtocol})}
	out, _ := supervise(t, opts, helper("dial", test4))
	require.Equal(t, "ok proxy\n", out)
	b := <-header
	require.Equal(t, []byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11"), b[:14])
	require.Equal(t, must(test4).Addr().AsSlice(), b[20:24])
	told := map[byte][]byte{}
	for tlvs := b[28:]; len(tlvs) > 0; {
		n := 3 + int(binary.BigEndian.Uint16(tlvs[1:]))
		told[tlvs[0]], tlvs = tlvs[3:n], tlvs[n:]
	}
	require.Equal(t, "context", string(told[byte(handoff.TypeContext)]))
	require.Len(t, told[5], 16, "PP2_TYPE_UNIQUE_ID")
	records, err := e.Open(told[byte(handoff.TypeRecords)])
	require.NoError(t, err)
	require.Equal(t, must(test4), records.Last().Original)
	e.Release(records)
}

// A connection of the program's own to the proxy is not handed over.
func TestHandOffIsForRedirects(t *testing.T) {
	p := serve(t, "tcp4", "127.0.0.1:0", "direct")
	out, _ := supervise(t, handedTo(p, nil), helper("dial", p.String()))
	require.Equal(t, "ok direct\n", out)
}

// A datagram that does not fit with the proxy's header is lost, and those after it are not.
func TestDatagramThatIsTooLargeForAProxyIsLostAlone(t *testing.T) {
	proxy, dir := vacant(t), t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "conf"), []byte(fmt.Sprintf(`
logoutput: %s/log
internal: %s port = %d
external: lo
clientmethod: none
socksmethod: none
client pass { from: 0/0 to: 0/0 }
socks pass { from: 0/0 to: 0/0 command: udpassociate udpreply }
`, dir, proxy.Addr(), proxy.Port())), 0o644))
	danted := exec.Command(enforcetest.Tool(t, "danted"), "-f", filepath.Join(dir, "conf"), "-p", filepath.Join(dir, "pid"))
	require.NoError(t, danted.Start())
	defer func() { _ = danted.Process.Signal(os.Interrupt); _ = danted.Wait() }()
	require.Eventually(t, func() bool {
		c, err := net.Dial("tcp", proxy.String())
		if err == nil {
			c.Close()
		}
		return err == nil
	}, time.Minute, 5*time.Millisecond)
	origin, _ := udpServer(t, "heard")
	out, _ := supervise(t, handedTo(proxy, nil), exec.Command(enforcetest.Tool(t, "python3"), "-c", fmt.Sprintf(`
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(5)
s.connect(("%s", %d))
def ask(message):
    for i in range(12): # A datagram may be lost, and then it is sent again.
        try:
            s.send(message)
            while True:
                answer = s.recv(100)
                if answer == b"heard " + message: return print(answer.decode())
        except TimeoutError: pass
ask(b"one")
s.send(b"x" * 65507)
ask(b"two")`, origin.Addr(), origin.Port())))
	require.Equal(t, "heard one\nheard two\n", out)
}
