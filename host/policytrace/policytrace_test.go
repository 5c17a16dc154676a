package policytrace

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/policyrun"
)

func TestALogIsALineForEveryEvent(t *testing.T) {
	var out bytes.Buffer
	l := NewLog(&out)
	l.now = func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("east", 3600)) }
	l.Write(Event{Event: "log", Why: "no\nway"})
	l.Write(Event{Event: "blocked", PID: 7})
	require.Equal(t, `{"version":1,"time":"2026-01-02T02:04:05Z","event":"log","why":"no\nway"}
{"version":1,"time":"2026-01-02T02:04:05Z","event":"blocked","pid":7}
`, out.String())
	require.NoError(t, l.Err())
	var none *Log
	none.Write(Event{})
	require.NoError(t, none.Err())
}

type full struct{ n int }

func (f *full) Write([]byte) (int, error) { f.n++; return 0, errors.New("disk full") }

func TestALogSaysThatLinesAreMissing(t *testing.T) {
	f := new(full)
	l := NewLog(f)
	l.Write(Event{})
	l.Write(Event{})
	require.EqualError(t, l.Err(), "the log of events is not complete: disk full")
	require.Equal(t, 2, f.n, "what has room later is written")
}

// A program chooses its own path and a callout its reason.
func TestWhatOthersWroteIsCleaned(t *testing.T) {
	r := Reader{Policy: new(policyrun.Policy), Paint: func(word string) string { return "<" + word + ">" }}
	e, text := r.Denied("/bin/a\x1b[2J", 7, netip.MustParseAddrPort("192.0.2.7:25"), errors.New("no\ncalloutd: forged"))
	require.Equal(t, "/bin/a\ufffd[2J[7] to 192.0.2.7:25 <blocked>: no\ufffdcalloutd: forged", text)
	require.Equal(t, "no\ncalloutd: forged", e.Why, "JSON escapes by itself")
	_, text = r.Redirect(ale.RedirectEvent{ProcessID: 7, AppID: "/bin/a", Err: errors.New("no\ncalloutd: forged")})
	require.NotContains(t, text, "\n")
	_, text = r.Redirect(ale.RedirectEvent{ProcessID: 7, AppID: "/bin/a", Why: "no\ncalloutd: forged"})
	require.NotContains(t, text, "\n")
}

func TestADenialWithoutAnAddress(t *testing.T) {
	e, text := Reader{}.Denied("", 7, netip.AddrPort{}, errors.New("it cannot be seen"))
	require.Equal(t, "unknown program[7] blocked: it cannot be seen", text)
	require.Equal(t, Event{Event: "blocked", PID: 7, Action: "block", Why: "it cannot be seen"}, e)
}

func TestAProcessThatIsNotKnownHasNoNumber(t *testing.T) {
	require.Equal(t, "client 10.0.0.7", Program("client 10.0.0.7", 0))
	require.Equal(t, "unknown program", Program("", 0))
	require.Equal(t, "unknown program[7]", Program("", 7))
}
