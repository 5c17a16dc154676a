package main

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/calloutd/calloutd/host/policytrace"
)

// maxRows bounds what a summary remembers. What has no room is counted only.
const maxRows = 10_000

// A summary counts who connected where and what was blocked, from the events. A
// nil one counts nothing.
type summary struct {
	own uint32 // calloutd's process: what its proxies do is no connection of the command

	mu   sync.Mutex
	rows map[row]int
	more int // connections that got no row
	lost map[string]uint64
}

// A row is what is counted as the same.
type row struct {
	program string
	way     string // "to", "from" or "listens at"
	peer    string
	outcome string
	refused bool
}

// What --json prints of a summary: the total, and each row.
type (
	summaryTotal struct {
		Event       string `json:"event"`
		Connections int    `json:"connections"`
		Refused     int    `json:"refused"`
		Programs    int    `json:"programs"`
	}
	summaryRow struct {
		Event   string `json:"event"`
		Program string `json:"program"`
		Count   int    `json:"count"`
		Way     string `json:"way,omitempty"`
		Peer    string `json:"peer,omitempty"`
		Outcome string `json:"outcome"`
	}
)

// add counts an event if it says what became of a connection.
func (s *summary) add(e policytrace.Event) {
	if s == nil || e.PID == s.own {
		return
	}
	r, n := rowOf(e)
	if n == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rows == nil {
		s.rows = map[row]int{}
	}
	if e.Event == "redirect-failed" { // It was counted when it was let go.
		s.count(row{r.program, r.way, r.peer, redirected(e), false}, -1)
	}
	s.count(r, n)
}

func (s *summary) count(r row, n int) {
	was, ok := s.rows[r]
	switch {
	case was+n <= 0:
		delete(s.rows, r)
	case ok || len(s.rows) < maxRows:
		s.rows[r] = was + n
	default:
		s.more += n
	}
}

// rowOf says where an event counts, n times. A connection is let go at one layer,
// which may be asked twice (ALE-LAY-14) and again later (ALE-LAY-12).
func rowOf(e policytrace.Event) (r row, n int) {
	r = row{program: whose(e), way: "to", peer: cmp.Or(e.Original, e.To)}
	switch {
	case e.Event == "blocked":
		r.outcome, r.refused = "blocked"+e.Because(), true
		if e.Inbound {
			r.way, r.peer = "from", hostOf(e.From)
		} else if r.peer == "" {
			r.way, r.peer = "at", cmp.Or(e.From, "an address that is not known")
		}
		return r, 1
	case e.Event == "redirect-failed":
		r.outcome, r.refused = redirected(e)+": "+e.Why, true
		return r, 1
	case e.Event != "classify" || e.Action != "permit" || slices.Contains(e.Flags, "IS_REAUTHORIZE") || slices.Contains(e.Flags, "IS_HONORING_POLICY_AUTHORIZE"):
		return r, 0
	}
	switch e.Family() {
	case "ALE_AUTH_CONNECT":
		if r.outcome = "permitted"; e.Original != "" {
			r.outcome = redirected(e)
		}
		if e.PeerName != "" {
			r.peer = policytrace.Clean(e.PeerName) + " (" + r.peer + ")"
		}
	case "ALE_AUTH_RECV_ACCEPT":
		r.way, r.peer, r.outcome = "from", hostOf(e.From), "permitted at "+e.To
	case "ALE_AUTH_LISTEN":
		r.way, r.peer, r.outcome = "listens at", e.From, "permitted"
	default:
		return r, 0
	}
	return r, 1
}

// whose is the program, or the host behind a gateway, which knows no programs.
func whose(e policytrace.Event) string {
	if e.Program == "" && !e.Inbound {
		return hostOf(e.From)
	}
	return e.Program
}

func redirected(e policytrace.Event) string {
	if e.Proxy != "" {
		return fmt.Sprintf("redirected to %s (proxy %s)", e.To, e.Proxy)
	}
	return "redirected to " + e.To
}

// hostOf leaves the port out, which is another one for each connection.
func hostOf(s string) string {
	if a, err := netip.ParseAddrPort(s); err == nil {
		return a.Addr().String()
	}
	return s
}

// lose notes which datagrams got lost, by the reason.
func (s *summary) lose(lost map[string]uint64) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost = lost
}

// print prints the counts, by program, the most frequent first.
func (s *summary) print(t *tracer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rows := slices.SortedFunc(maps.Keys(s.rows), func(a, b row) int {
		return cmp.Or(cmp.Compare(a.program, b.program), cmp.Compare(s.rows[b], s.rows[a]),
			cmp.Compare(a.way+a.peer+a.outcome, b.way+b.peer+b.outcome))
	})
	total, refused, programs := s.more, 0, 0
	for i, r := range rows {
		total += s.rows[r]
		if r.refused {
			refused += s.rows[r]
		}
		if i == 0 || rows[i-1].program != r.program {
			programs++
		}
	}
	t.print(summaryTotal{"summary", total, refused, programs},
		fmt.Sprintf("calloutd: %s by %s, %s refused", connections(total), counted(programs, "program"), count(refused)))
	for i, r := range rows {
		head := ""
		if i == 0 || rows[i-1].program != r.program {
			head = "  " + policytrace.Clean(cmp.Or(r.program, "unknown program")) + "\n"
		}
		t.print(summaryRow{"summary-row", r.program, s.rows[r], r.way, r.peer, r.outcome},
			fmt.Sprintf("%s%7d %s %s: %s", head, s.rows[r], r.way, r.peer, r.outcome))
	}
	if s.more > 0 {
		t.print(summaryRow{Event: "summary-row", Count: s.more, Outcome: "not told apart"}, fmt.Sprintf("%7d others, not told apart", s.more))
	}
	for _, why := range slices.Sorted(maps.Keys(s.lost)) {
		if n := s.lost[why]; n > 0 {
			t.print(summaryRow{Event: "summary-row", Count: int(n), Outcome: "datagrams lost: " + why}, fmt.Sprintf("%7d datagrams lost: %s", n, why))
		}
	}
}
