package policytrace

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
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

// A disk has room for so many bytes.
type disk struct {
	bytes.Buffer
	room int
}

func (d *disk) Write(b []byte) (int, error) {
	n, _ := d.Buffer.Write(b[:min(d.room, len(b))])
	if d.room -= n; n < len(b) {
		return n, errors.New("disk full")
	}
	return n, nil
}

// Whoever runs it is told when lines begin to be missing, and when they no longer are; and what has
// room later is a line of its own, whatever of the one before is there.
func TestALogSaysThatLinesAreMissing(t *testing.T) {
	d := &disk{room: 100}
	var told []string
	l := NewLog(d)
	l.OnWrite = func(err error) { told = append(told, fmt.Sprint(err)) }
	for range 3 {
		l.Write(Event{Event: "log"})
	}
	require.Equal(t, []string{"disk full"}, told)
	d.room = 1000
	for range 2 {
		l.Write(Event{Event: "blocked"})
	}
	require.Equal(t, []string{"disk full", "<nil>"}, told)
	require.EqualError(t, l.Err(), "the log of events is not complete: disk full")
	lines := strings.Split(strings.TrimSuffix(d.String(), "\n"), "\n")
	require.Len(t, lines, 4)
	for i, whole := range []string{"log", "", "blocked", "blocked"} {
		var e Event
		err := json.Unmarshal([]byte(lines[i]), &e)
		require.Equal(t, whole == "", err != nil, lines[i])
		require.Equal(t, whole, e.Event)
	}
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
