package dnsnames

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/enforce/enforcetest"
	"github.com/calloutd/calloutd/host/loglimit"
)

// raw is a resolver by UDP that answers a query with whatever datagrams it likes.
func raw(t *testing.T, say func(q *dns.Msg, send func([]byte))) netip.AddrPort {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	over := make(chan struct{})
	t.Cleanup(func() { c.Close(); <-over })
	go func() {
		defer close(over)
		b := make([]byte, dns.MaxMsgSize)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			if q := new(dns.Msg); q.Unpack(b[:n]) == nil {
				say(q, func(b []byte) { _, _ = c.WriteTo(b, from) })
			}
		}
	}()
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// reply is an answer with records, changed.
func reply(q *dns.Msg, change func(*dns.Msg), records ...string) []byte {
	m := new(dns.Msg).SetReply(q)
	for _, r := range records {
		rr, err := dns.NewRR(r)
		if err != nil {
			panic(err)
		}
		m.Answer = append(m.Answer, rr)
	}
	if change != nil {
		change(m)
	}
	b, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return b
}

// Whoever can forge a resolver's address and is told by the program when and what it asks
// needs the number, too: the program does not know it. (Off this host; on it the address
// and port are the resolver's.)
func TestProgramDoesNotChooseTheNumberOfTheQuery(t *testing.T) {
	const own = 0x1234
	numbers := make(chan uint16, 64)
	to := raw(t, func(q *dns.Msg, send func([]byte)) {
		numbers <- q.Id
		forged := reply(q, func(m *dns.Msg) { m.Id = own }, "app.example. 60 IN A 203.0.113.66")
		if q.Id != own {
			send(forged) // as somebody would who was told by the program
		}
		send(reply(q, nil, "app.example. 60 IN A 198.51.100.7"))
	})
	s := newSite(t, Options{Resolver: to, Logf: t.Logf}, false)
	others := 0
	for range 8 { // 0x1234 itself comes by chance: eight times in a row with 2^-128.
		q := new(dns.Msg).SetQuestion("app.example.", dns.TypeA)
		q.Id = own
		r, _, err := (&dns.Client{Timeout: time.Minute}).Exchange(q, s.proxy.Addr().String())
		require.NoError(t, err)
		require.EqualValues(t, own, r.Id, "the program's answer has its own")
		require.Equal(t, "198.51.100.7", r.Answer[0].(*dns.A).A.String())
		if <-numbers != own {
			others++
		}
	}
	require.NotZero(t, others)
	require.Empty(t, s.names.Name(here, netip.MustParseAddr("203.0.113.66")))
	require.Equal(t, "app.example", s.names.Name(here, web))
}

// What somebody sends from the resolver's address who does not know the number of the query
// has no effect: the resolver's answer comes all the same, and is the one that counts.
func TestDatagramsOfOthersDoNotEndAQuery(t *testing.T) {
	to := raw(t, func(q *dns.Msg, send func([]byte)) {
		other := func(m *dns.Msg) { m.Id = q.Id + 1 }
		send(nil)
		send([]byte("short"))
		send(reply(q, other, "app.example. 60 IN A 203.0.113.66")[:30])
		send(reply(q, other, "app.example. 60 IN A 203.0.113.66"))
		send(append(binary.BigEndian.AppendUint16(nil, q.Id+1), "\x80\x00\xff\xff\xff\xff\xff\xff\xff\xff"...)) // as much of everything as can be said
		send(reply(q, nil, "app.example. 60 IN A 198.51.100.7"))
	})
	s := newSite(t, Options{Resolver: to, Logf: t.Logf}, false)
	r, err := s.askItself("app.example.")
	require.NoError(t, err)
	require.Equal(t, dns.RcodeSuccess, r.Rcode)
	require.Equal(t, "198.51.100.7", r.Answer[0].(*dns.A).A.String())
	require.Empty(t, s.names.Name(here, netip.MustParseAddr("203.0.113.66")))
	require.Equal(t, "app.example", s.names.Name(here, web))
}

// Bytes of a label that are none of a host's name are carried, and not believed: they could
// read like another name, or end the list of names that a callout sees.
func TestOddNamesAreNotBelieved(t *testing.T) {
	s := newSite(t, Options{Resolver: resolver(t, false), Logf: t.Logf}, false)
	for _, name := range []string{`bank\000.example.`, `bank\.example.`, `bank\032example.`, `*.example.`, `b\226\132\170.example.`, `\027[2J.example.`, `a\"b.example.`, `a/b.`, "."} {
		r, err := s.askItself(name)
		require.NoError(t, err, name)
		require.Equal(t, dns.RcodeSuccess, r.Rcode, name)
		require.Empty(t, s.names.Name(here, web), name)
	}
	_, err := s.askItself("_sip._TCP.xn--bcher-kva.Example.")
	require.NoError(t, err)
	require.Equal(t, "_sip._tcp.xn--bcher-kva.example", s.names.Name(here, web))
}

// Answers that a resolver can be made to give, or somebody gives in its place: none has a
// name believed that was not asked for, none holds the proxy, which answers the next query.
func TestHostileAnswers(t *testing.T) {
	var chain []string
	for i := range 40 {
		chain = append(chain, strings.Repeat("x", i)+"a.example. 60 IN CNAME "+strings.Repeat("x", i+1)+"a.example.")
	}
	pointers := func(q *dns.Msg, _ ...string) []byte { // A name that points at itself.
		b := reply(q, nil, "app.example. 60 IN A 198.51.100.7")
		at := len(b) - 4 - 10 - len("\x03app\x07example\x00")
		return append(binary.BigEndian.AppendUint16(b[:at:at], 0xC000|uint16(at)), b[len(b)-14:]...)
	}
	for name, c := range map[string]struct {
		say   func(q *dns.Msg) []byte
		knows string // of web
	}{
		"a loop of aliases": {func(q *dns.Msg) []byte {
			return reply(q, nil, "app.example. 60 IN CNAME b.example.", "b.example. 60 IN CNAME app.example.", "evil.example. 60 IN A 198.51.100.7")
		}, ""},
		"a chain of aliases without end": {func(q *dns.Msg) []byte {
			return reply(q, nil, append([]string{"app.example. 60 IN CNAME a.example.", strings.Repeat("x", 40) + "a.example. 60 IN A 198.51.100.7"}, chain...)...)
		}, ""},
		"a name that points at itself": {func(q *dns.Msg) []byte { return pointers(q) }, ""},
		"another question": {func(q *dns.Msg) []byte {
			return reply(q, func(m *dns.Msg) { m.Question[0].Name = "evil.example." }, "app.example. 60 IN A 198.51.100.7")
		}, ""},
		"two questions": {func(q *dns.Msg) []byte {
			return reply(q, func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }, "app.example. 60 IN A 198.51.100.7")
		}, ""},
		"no question": {func(q *dns.Msg) []byte {
			return reply(q, func(m *dns.Msg) { m.Question = nil }, "app.example. 60 IN A 198.51.100.7")
		}, ""},
		"mapped and translated addresses": {func(q *dns.Msg) []byte {
			return reply(q, nil, "app.example. 60 IN AAAA ::ffff:198.51.100.7", "app.example. 60 IN AAAA 64:ff9b::127.0.0.1", "app.example. 4294967295 IN AAAA ::ffff:10.0.0.1")
		}, "app.example"},
		"cut off": {func(q *dns.Msg) []byte { return reply(q, nil, "app.example. 60 IN A 198.51.100.7")[:30] }, ""},
		"records beside the answer": {func(q *dns.Msg) []byte {
			return reply(q, func(m *dns.Msg) { m.Extra, m.Ns, m.Answer = m.Answer, m.Answer, nil }, "app.example. 60 IN A 198.51.100.7")
		}, ""},
		"mixed case": {func(q *dns.Msg) []byte {
			return reply(q, func(m *dns.Msg) { m.Question[0].Name = "aPP.exAMPLE." }, "APP.example. 0 IN A 198.51.100.7")
		}, "app.example"},
	} {
		to := raw(t, func(q *dns.Msg, send func([]byte)) {
			if q.Question[0].Name == "next.example." {
				send(reply(q, nil, "next.example. 60 IN A 198.51.100.8"))
				return
			}
			send(c.say(q))
		})
		s := newSite(t, Options{Resolver: to, Logf: t.Logf}, false)
		_, err := s.askItself("app.example.")
		require.NoError(t, err, name)
		require.Equal(t, c.knows, s.names.Name(here, web), name)
		r, err := s.askItself("next.example.")
		require.NoError(t, err, name)
		require.Equal(t, dns.RcodeSuccess, r.Rcode, name)
		s.proxy.Close()
	}
}

// An answer that came in pointers to names goes on so: it fits the buffer that the program
// has for it, or says that it does not, and the program asks by TCP.
func TestAnswersFitTheProgram(t *testing.T) {
	const name = "a-rather-long-name-of-a-host.of-a-rather-long-name-of-a-zone.example."
	answers := func(q *dns.Msg, n int) *dns.Msg {
		m := new(dns.Msg).SetReply(q)
		m.Compress = true
		for i := range n {
			m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.IPv4(198, 51, byte(i>>8), byte(i))})
		}
		return m
	}
	for what, c := range map[string]struct {
		network     string
		buffer      uint16 // of the program
		sent, comes int    // records
	}{
		"without EDNS":                     {"udp", 0, 25, 25},
		"as a program in Go asks":          {"udp", 1232, 70, 70},
		"of a resolver that minds no size": {"udp", 0, 200, 26},
		"by TCP":                           {"tcp", 0, 200, 200},
		"by TCP, as much as there may be":  {"tcp", 0, 4000, 4000},
	} {
		udp, tcp, err := listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
		require.NoError(t, err)
		serve(t, udp, tcp, func(w dns.ResponseWriter, q *dns.Msg) { _ = w.WriteMsg(answers(q, c.sent)) })
		s := newSite(t, Options{Resolver: udp.LocalAddr().(*net.UDPAddr).AddrPort(), Logf: t.Logf}, false)
		q := new(dns.Msg).SetQuestion(name, dns.TypeA)
		if c.buffer > 0 {
			q.SetEdns0(c.buffer, false)
		}
		r, _, err := (&dns.Client{Net: c.network, Timeout: time.Minute}).Exchange(q, s.proxy.Addr().String())
		require.NoError(t, err, what)
		require.Len(t, r.Answer, c.comes, what)
		require.Equal(t, c.comes < c.sent, r.Truncated, what)
		s.proxy.Close()
	}
}

// A NOTIFY asks for no address: nothing is believed of what comes back, whatever it looks like.
func TestOnlyAQueryTeaches(t *testing.T) {
	for name, change := range map[string]func(asked, answered *dns.Msg){
		"asked":    func(asked, _ *dns.Msg) { asked.Opcode = dns.OpcodeNotify },
		"answered": func(_, answered *dns.Msg) { answered.Opcode = dns.OpcodeNotify },
	} {
		var answered dns.Msg
		q := new(dns.Msg).SetQuestion("app.example.", dns.TypeA)
		change(q, &answered)
		to := raw(t, func(q *dns.Msg, send func([]byte)) {
			send(reply(q, func(m *dns.Msg) { m.Opcode = answered.Opcode }, "app.example. 60 IN A 198.51.100.7"))
		})
		s := newSite(t, Options{Resolver: to, Logf: t.Logf}, false)
		r, _, err := (&dns.Client{Timeout: time.Minute}).Exchange(q, s.proxy.Addr().String())
		require.NoError(t, err)
		require.Len(t, r.Answer, 1, name)
		require.Empty(t, s.names.Name(here, web), name)
		s.proxy.Close()
	}
}

// What cannot be carried is logged, but not without end: the rest is counted.
func TestComplaintsAreBounded(t *testing.T) {
	const queries = 200
	var lines enforcetest.Lines
	s := newSite(t, Options{Logf: lines.Logf}, false)
	for range queries {
		r, err := s.askItself("app.example.")
		require.NoError(t, err)
		require.Equal(t, dns.RcodeRefused, r.Rcode)
	}
	s.proxy.Close()
	lines.Bounded(t, 1, queries)
}

// A program that floods the proxy with queries to a resolver that never answers has a
// bounded number of them kept; the others are refused, which does not fill the log.
func TestFloodIsBounded(t *testing.T) {
	began := time.Now()
	var lines atomic.Uint64
	s := newSite(t, Options{Resolver: resolver(t, true), Logf: func(format string, _ ...any) {
		if strings.Contains(format, "resolvers that do not answer") {
			lines.Add(1)
		}
	}}, false)
	b, err := new(dns.Msg).SetQuestion("a.example.", dns.TypeA).Pack()
	require.NoError(t, err)
	c, err := net.Dial("udp", s.proxy.Addr().String())
	require.NoError(t, err)
	defer c.Close()
	for refused := 0; refused < 10*loglimit.Burst; {
		for range 100 {
			_, err = c.Write(b)
			require.NoError(t, err)
		}
		require.NoError(t, c.SetReadDeadline(time.Now().Add(5*time.Millisecond)))
		for answer := make([]byte, dns.MaxMsgSize); ; refused++ {
			if _, err := c.Read(answer); err != nil {
				require.ErrorIs(t, err, os.ErrDeadlineExceeded)
				break
			}
		}
	}
	require.LessOrEqual(t, len(s.proxy.slots), maxQueries)
	require.LessOrEqual(t, len(s.proxy.waiting), maxWaiting)
	s.proxy.Close()
	require.Positive(t, lines.Load())
	require.LessOrEqual(t, lines.Load(), enforcetest.MostLines(began))
}
