package ale

import (
	"maps"
	"net/netip"
	"slices"
	"time"
)

// A peer names a flow of a datagram socket.
type peer struct {
	remote netip.AddrPort
	icmp   ICMPMessage // zero for others than ICMP
}

func newPeer(remote netip.AddrPort, m *ICMPMessage) peer {
	if m == nil {
		return peer{remote: remote}
	}
	return peer{remote, m.flow()}
}

// A flowTable has the flows of a datagram socket, under the socket's lock.
type flowTable struct {
	byRemote map[peer]*Flow // by what the application calls the peer
	byTarget map[peer]*Flow // redirected ones, by where the datagrams go
	swept    time.Time
	any      bool // AUTH_CONNECT or AUTH_RECV_ACCEPT was asked, which owes an ENDPOINT_CLOSURE
}

// empty takes all flows out.
func (t *flowTable) empty() []*Flow {
	out := slices.Collect(maps.Values(t.byRemote))
	t.byRemote, t.byTarget = nil, nil
	return out
}

func (t *flowTable) add(p peer, f *Flow, now time.Time) {
	if t.byRemote == nil {
		t.byRemote, t.byTarget = map[peer]*Flow{}, map[peer]*Flow{}
	}
	f.last = now
	t.byRemote[p] = f
	if f.Redirected && !f.in.Inbound {
		t.byTarget[target(p, f)] = f
	}
}

func target(p peer, f *Flow) peer { return peer{plain(f.Remote), p.icmp} }

// live finds a flow that has not idled out (ALE-LAY-11). When there is none, one
// is about to begin: then those that idled out are taken out, at most once per
// idle time, and returned as old.
func (t *flowTable) live(p peer, now time.Time, idle time.Duration) (f *Flow, old []*Flow) {
	f = t.byRemote[p]
	if f != nil && now.Sub(f.last) < idle {
		f.last = now
		return f, nil
	}
	if f != nil {
		old = append(old, t.remove(p, f))
	}
	if now.Sub(t.swept) < idle {
		return nil, old
	}
	t.swept = now
	for p, f := range t.byRemote {
		if now.Sub(f.last) >= idle {
			old = append(old, t.remove(p, f))
		}
	}
	return nil, old
}

func (t *flowTable) remove(p peer, f *Flow) *Flow {
	delete(t.byRemote, p)
	if t.byTarget[target(p, f)] == f {
		delete(t.byTarget, target(p, f))
	}
	return f
}
