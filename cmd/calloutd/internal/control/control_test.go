package control_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/calloutd/calloutd/cmd/calloutd/internal/control"
	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/enforce/dnsnames"
	"github.com/calloutd/calloutd/host/enforce/nftgateway"
	"github.com/calloutd/calloutd/wsk/remote"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type daemon struct{ state string }

func (d daemon) Status() control.Status       { return control.Status{State: d.state, PID: 7} }
func (d daemon) Health() error                { return errors.New("a part has ended") }
func (d daemon) Reload(context.Context) error { return errors.New("policy.yaml:1:1: a mistake") }

func TestAsk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control.sock")
	_, err := control.Ask(t.Context(), path)
	require.ErrorIs(t, err, fs.ErrNotExist)
	l, err := net.Listen("unix", path)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- control.Serve(ctx, l, daemon{"ready"}) }()
	s, err := control.Ask(t.Context(), path)
	require.NoError(t, err)
	require.Equal(t, control.Status{State: "ready", PID: 7}, s)
	cancel()
	require.NoError(t, <-ended)

	// A socket that somebody else answers on.
	other, err := net.Listen("unix", path+"2")
	require.NoError(t, err)
	defer other.Close()
	go func() {
		c, err := other.Accept()
		if err == nil {
			c.Close()
		}
	}()
	_, err = control.Ask(t.Context(), path+"2")
	require.Error(t, err)
	require.False(t, errors.Is(err, syscall.ECONNREFUSED))
}

// Figures of a daemon with all that there can be, in the form that Prometheus reads:
// values of labels are what somebody else wrote.
func TestMetrics(t *testing.T) {
	at := time.Unix(1, 500_000_000)
	s := control.Status{Version: "v1", State: "reloading", Started: at, Records: 3, Policy: control.Policy{Generation: 2, Since: at, Filters: 5},
		Callouts: map[string]control.Callout{
			"b": {Decisions: 1 << 40, Failures: 6, Quarantined: "why", Metrics: map[string]int64{"web.limited": 7, "a \"quote\" \\ and\nlines": -2}},
			"a": {Decisions: 1},
		},
		Reload: control.Reload{Attempts: 4, Failures: 1, Error: "bad"}, Remote: &control.Remote{Stats: remote.Stats{Clients: 2, Requests: 9}},
		Names:       &dnsnames.Figures{Addresses: 11, Bytes: 12, Forgotten: 13, Crowded: 14},
		Gateway:     &nftgateway.State{Rules: true},
		Connections: &enforce.ConnectionStats{Open: 21, Max: 22, Carried: 23, Refused: map[string]uint64{enforce.RefusedByPolicy: 24}},
		Datagrams:   &enforce.DatagramStats{Flows: 8, Bytes: 4096, MaxBytes: 1 << 26, Lost: map[string]uint64{enforce.LostForMemory: 5, enforce.LostForFlows: 0}}}
	text := metricsOf(t, s)
	for _, line := range []string{
		`calloutd_build_info{version="v1"} 1`, `calloutd_ready 1`, `calloutd_start_time_seconds 1.5`, `calloutd_policy_reload_failed 1`, `calloutd_records 3`,
		`calloutd_callout_decisions_total{callout="b"} 1099511627776`, `calloutd_callout_quarantined{callout="a"} 0`, `calloutd_remote_requests_total 9`,
		`calloutd_names_addresses 11`, `calloutd_names_bytes 12`, `calloutd_names_forgotten_total 13`, `calloutd_names_crowded_total 14`,
		`calloutd_gateway_rules 1`, `calloutd_gateway_guard 0`, `calloutd_connections_open 21`, `calloutd_connections_max 22`, `calloutd_connections_carried_total 23`, `calloutd_connections_refused_total{why="policy"} 24`,
		`calloutd_datagram_flows 8`, `calloutd_datagram_bytes 4096`, `calloutd_datagram_bytes_max 67108864`, `calloutd_datagrams_lost_total{why="memory"} 5`,
		`calloutd_callout_metric{callout="b",name="web.limited"} 7`, `calloutd_callout_metric{callout="b",name="a \"quote\" \\ and\nlines"} -2`,
	} {
		require.Contains(t, text, "\n"+line+"\n")
	}
	known, seen := regexp.MustCompile(`^# (HELP|TYPE) (calloutd_\w+) .+$`), map[string]bool{}
	figure := regexp.MustCompile(`^(calloutd_\w+)(\{\w+="([^"\\]|\\[\\"n])*"(,\w+="([^"\\]|\\[\\"n])*")*\})? -?[0-9.]+$`)
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if m := known.FindStringSubmatch(line); m != nil {
			require.False(t, seen[m[1]+m[2]], "%s: a family is one group", line)
			seen[m[1]+m[2]] = true
			continue
		}
		m := figure.FindStringSubmatch(line)
		require.NotNil(t, m, line)
		require.True(t, seen["TYPE"+m[1]], line)
	}
	require.NotContains(t, metricsOf(t, control.Status{}), "callout_", "what has no figures is left out")
}

func metricsOf(t *testing.T, s control.Status) string {
	var b bytes.Buffer
	require.NoError(t, s.WriteMetrics(&b))
	return b.String()
}

// Who stops in the middle of a request, or does not read its answer, holds nothing for long.
func TestWhoDoesNotGoOnIsLeft(t *testing.T) {
	for name, request := range map[string]string{
		"in its head":                    "GET /v1/status HTT",
		"in its body":                    "POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n12",
		"with a body that does not end":  "POST /v1/reload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1000\r\n" + strings.Repeat("x", 4096),
		"before the answer is read":      "GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n",
		"before the next request begins": "",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newPipes()
				ended := make(chan error, 1)
				ctx, cancel := context.WithCancel(t.Context())
				go func() { ended <- control.Serve(ctx, l, daemon{"ready"}) }()
				client, server := net.Pipe()
				gone := make(chan struct{})
				l.conns <- &closing{Conn: server, closed: gone}
				begun := time.Now()
				_, _ = io.WriteString(client, request) // It may be refused before all of it is said.
				<-gone
				require.LessOrEqual(t, time.Since(begun), 2*time.Minute)
				cancel()
				require.NoError(t, <-ended)
			})
		})
	}
}

// pipes is a listener of connections in memory.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{} }

// closing tells that it was closed.
type closing struct {
	net.Conn
	once   sync.Once
	closed chan struct{}
}

func (c *closing) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}
