package handoff

import (
	"context"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// served is where a proxy listens, which does with each connection what it likes.
func served(t *testing.T, serve func(c *net.TCPConn)) netip.AddrPort {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	var wg sync.WaitGroup
	t.Cleanup(func() { l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { defer c.Close(); serve(c.(*net.TCPConn)) })
		}
	})
	return l.Addr().(*net.TCPAddr).AddrPort()
}

const (
	socksConnected = "\x05\x00" + "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"
	connected      = "HTTP/1.1 200 OK\r\n\r\n"
	first          = "what the destination says"
)

// say writes in pieces, each a packet of its own.
func say(c *net.TCPConn, what string, piece int) error {
	for len(what) > 0 {
		n := min(piece, len(what))
		if _, err := io.WriteString(c, what[:n]); err != nil {
			return err
		}
		what = what[n:]
	}
	return nil
}

// Proxies that mean harm, or are broken: none holds a connection past its deadline, none
// is read without end, and what the destination says comes whole.
func TestHostileProxies(t *testing.T) {
	endless := func(begin, more string) func(*net.TCPConn) {
		return func(c *net.TCPConn) {
			for err := say(c, begin, len(begin)); err == nil; {
				err = say(c, more, len(more))
			}
		}
	}
	says := func(what string, piece int) func(*net.TCPConn) {
		return func(c *net.TCPConn) { _ = say(c, what, piece); _, _ = io.Copy(io.Discard, c) }
	}
	for _, c := range []struct {
		name  string
		kind  Kind
		does  func(*net.TCPConn)
		cause Cause
		why   string // empty: it succeeds
	}{
		{"HTTP byte by byte", HTTPConnect, says("HTTP/1.1 100 Continue\r\n\r\n"+connected+first, 1), 0, ""},
		{"SOCKS byte by byte", SOCKS5, says(socksConnected+first, 1), 0, ""},
		{"HTTP all at once", HTTPConnect, says("HTTP/1.1 103 Hints\r\nLink: a\r\n\r\n"+connected+first, 1<<10), 0, ""},
		{"lines without end", HTTPConnect, endless("HTTP/1.1 200 OK\r\n", "X: y\r\n"), Unknown, "answered with a header of more than 16384 bytes"},
		{"a line without end", HTTPConnect, endless("HTTP/1.1 200 ", "x"), Unknown, "answered with a header of more than 16384 bytes"},
		{"interim answers without end", HTTPConnect, endless("", "HTTP/1.1 102 Processing\r\n\r\n"), Unknown, "answered with a header of more than 16384 bytes"},
		{"almost an end, without end", HTTPConnect, endless("HTTP/1.1 200 OK", "\r\n\r"), Unknown, "answered with a header of more than 16384 bytes"},
		{"silent", HTTPConnect, says("", 1), TimedOut, "did not answer in time"},
		{"SOCKS, silent after the method", SOCKS5, says("\x05\x00", 1), TimedOut, "did not answer in time"},
		{"closes before it is asked", SOCKS5, func(c *net.TCPConn) { _ = c.CloseWrite(); _, _ = io.Copy(io.Discard, c) }, Unknown, "closed the connection without an answer"},
		{"closes in the middle", HTTPConnect, func(c *net.TCPConn) {
			_ = say(c, "HTTP/1.1 200 OK\r\n\r", 1<<10)
			_ = c.CloseWrite()
			_, _ = io.Copy(io.Discard, c)
		}, Unknown, "closed the connection without an answer"},
		{"resets", SOCKS5, func(c *net.TCPConn) {
			_, _ = io.ReadFull(c, make([]byte, 3))
			_ = c.SetLinger(0)
		}, Unknown, "did not answer: "},
		{"SOCKS4", SOCKS5, says("\x00\x5a\x00\x00\x00\x00\x00\x00", 8), Unknown, "does not speak SOCKS5: it answered with byte 0x00"},
	} {
		conn, err := net.Dial("tcp4", served(t, c.does).String())
		require.NoError(t, err)
		defer conn.Close()
		deadline := time.Minute
		if c.cause == TimedOut {
			deadline = 100 * time.Millisecond
		}
		require.NoError(t, conn.SetDeadline(time.Now().Add(deadline)))
		err = (&Proxy{Kind: c.kind}).Introduce(conn, &Request{Destination: to4})
		if c.why != "" {
			var e *Error
			require.ErrorAs(t, err, &e, c.name)
			require.Equal(t, c.cause, e.Cause, "%s: %v", c.name, err)
			require.True(t, strings.HasPrefix(e.Why, c.why), "%s: %v", c.name, err)
		} else {
			require.NoError(t, err, c.name)
			b := make([]byte, len(first))
			_, err = io.ReadFull(conn, b)
			require.NoError(t, err, c.name)
			require.Equal(t, first, string(b), c.name)
		}
	}
}

// A connection that is over before anything is said is told from one without an answer.
func TestProxyThatResetsBeforeItIsAsked(t *testing.T) {
	for _, kind := range []Kind{ProxyProtocol, SOCKS5, HTTPConnect} {
		conn, err := net.Dial("tcp4", served(t, func(c *net.TCPConn) {
			_, _ = c.Read(make([]byte, 1))
			_ = c.SetLinger(0)
		}).String())
		require.NoError(t, err)
		defer conn.Close()
		_, err = conn.Write([]byte{0})
		require.NoError(t, err)
		_, err = conn.Read(make([]byte, 1))
		require.Error(t, err)
		var e *Error
		require.ErrorAs(t, (&Proxy{Kind: kind}).Introduce(conn, &Request{Source: to4, Destination: to4}), &e)
		require.Equal(t, Unknown, e.Cause)
		require.True(t, strings.HasPrefix(e.Why, "did not read what it was told: "), e.Why)
	}
}

// associates is a SOCKS5 proxy that says where datagrams go, and whose connections that ended
// are counted.
func associates(t *testing.T, says string) (at netip.AddrPort, ended chan struct{}) {
	ended = make(chan struct{}, 1)
	return served(t, func(c *net.TCPConn) {
		_ = say(c, says, len(says))
		_, _ = io.Copy(io.Discard, c)
		ended <- struct{}{}
	}), ended
}

func TestAssociationsThatAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		relay string
		cause Cause
		why   string
	}{
		"multicast": {"\x05\x00\x00\x01\xe0\x00\x00\x01\x04\x38", NotAllowed, "wants datagrams to go to 224.0.0.1:1080, which is nearer to this host than it is itself"},
		"broadcast": {"\x05\x00\x00\x01\xff\xff\xff\xff\x04\x38", NotAllowed, "wants datagrams to go to 255.255.255.255:1080, which is nearer to this host than it is itself"},
		"no port":   {"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x00", Unknown, "did not say where datagrams go"},
		"refused":   {"\x05\x02\x00\x01", NotAllowed, "does not allow it by its rules"},
	} {
		at, ended := associates(t, "\x05\x00"+c.relay)
		_, err := Associate(t.Context(), at, &Proxy{Kind: SOCKS5})
		require.Equal(t, &Error{SOCKS5, c.cause, c.why}, err, name)
		<-ended // Nothing is left of it.
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	l.Close()
	_, err = Associate(t.Context(), l.Addr().(*net.TCPAddr).AddrPort(), &Proxy{Kind: SOCKS5})
	require.ErrorContains(t, err, "the socks5 proxy cannot be reached: ")
}

// A proxy that takes its time is waited for no longer than the context says.
func TestAssociationIsNotWaitedForWithoutEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan struct{}, 1)
	at := served(t, func(c *net.TCPConn) {
		_, _ = io.ReadFull(c, make([]byte, len("\x05\x01\x00"))) // It is connected.
		_ = say(c, "\x05\x00", 2)
		cancel()
		_, _ = io.Copy(io.Discard, c)
		ended <- struct{}{}
	})
	_, err := Associate(ctx, at, &Proxy{Kind: SOCKS5})
	require.Equal(t, &Error{SOCKS5, TimedOut, "did not answer in time"}, err)
	<-ended
}

// Datagrams go to the relay and come from there, and from nowhere else: also not from the
// proxy's address at another port, as one has it that moved its relay. It ends with the
// proxy's connection, also when the context of its beginning is over.
func TestAssociationTakesOnlyFromItsRelay(t *testing.T) {
	relay, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	defer relay.Close()
	moved, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	defer moved.Close()
	port := relay.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	for _, host := range []string{"\x7f\x00\x00\x01", "\x00\x00\x00\x00"} { // The latter is where the connection goes, too.
		over := make(chan struct{})
		end := sync.OnceFunc(func() { close(over) })
		defer end()
		at := served(t, func(c *net.TCPConn) {
			_ = say(c, "\x05\x00"+"\x05\x00\x00\x01"+host+string([]byte{byte(port >> 8), byte(port)})+"more than was asked for", 1<<10)
			<-over
		})
		ctx, cancel := context.WithCancel(t.Context())
		a, err := Associate(ctx, at, &Proxy{Kind: SOCKS5})
		require.NoError(t, err)
		cancel()
		require.NoError(t, a.WriteTo([]byte("to"), netip.MustParseAddrPort("[::ffff:198.51.100.7]:443")))
		require.ErrorContains(t, a.WriteTo([]byte("to"), netip.MustParseAddrPort("[fe80::7]:53")), "is of one link")
		b := make([]byte, 1<<10)
		n, _, err := relay.ReadFromUDPAddrPort(b)
		require.NoError(t, err)
		require.Equal(t, "\x00\x00\x00\x01\xc6\x33\x64\x07\x01\xbbto", string(b[:n]))
		for what, c := range map[string]struct{ datagram, payload, from string }{
			"IPv4":                    {"\x00\x00\x00\x01\xc6\x33\x64\x07\x01\xbbfrom", "from", "198.51.100.7:443"},
			"IPv6":                    {"\x00\x00\x00\x04\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x07\x01\xbb", "", "[2001:db8::7]:443"},
			"v4-mapped":               {"\x00\x00\x00\x04" + strings.Repeat("\x00", 10) + "\xff\xff\xc6\x33\x64\x07\x01\xbbx", "x", "198.51.100.7:443"},
			"nothing":                 {"", "", ""},
			"three bytes":             {"\x00\x00\x00", "", ""},
			"no address":              {"\x00\x00\x00\x01", "", ""},
			"half an address":         {"\x00\x00\x00\x01\xc6\x33\x64\x07\x01", "", ""},
			"an address of IPv4 only": {"\x00\x00\x00\x04\xc6\x33\x64\x07\x01\xbb", "", ""},
			"a fragment":              {"\x00\x00\x01\x01\xc6\x33\x64\x07\x01\xbbfrom", "", ""},
			"from a name":             {"\x00\x00\x00\x03\x04host\x01\xbbfrom", "", ""},
			"of no kind":              {"\x00\x00\x00\x00\x01\xbbfrom", "", ""},
		} {
			_, err = moved.WriteToUDPAddrPort([]byte("\x00\x00\x00\x01\xc6\x33\x64\x07\x01\xbbforged"), a.relay.LocalAddr().(*net.UDPAddr).AddrPort())
			require.NoError(t, err)
			_, err = relay.WriteToUDPAddrPort([]byte(c.datagram), a.relay.LocalAddr().(*net.UDPAddr).AddrPort())
			require.NoError(t, err)
			payload, from, err := a.ReadFrom(b)
			require.NoError(t, err, what)
			require.Equal(t, c.payload, string(payload), what)
			if c.from == "" {
				require.False(t, from.IsValid(), what)
			} else {
				require.Equal(t, c.from, from.String(), what)
			}
		}
		select {
		case <-a.Ended():
			t.Fatal("it has ended before the proxy ended it")
		default:
		}
		end()
		<-a.Ended()
		_, _, err = a.ReadFrom(b)
		require.ErrorContains(t, err, "the socks5 proxy's association has ended: ")
		require.Error(t, a.WriteTo([]byte("to"), to4))
		a.Close()
	}
	at, ended := associates(t, "\x05\x00"+"\x05\x00\x00\x01\x00\x00\x00\x00"+string([]byte{byte(port >> 8), byte(port)}))
	a, err := Associate(t.Context(), at, &Proxy{Kind: SOCKS5})
	require.NoError(t, err)
	a.Close()
	<-ended
	_, _, err = a.ReadFrom(make([]byte, 1))
	require.Error(t, err)
}
