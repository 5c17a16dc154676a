// Package control is how a daemon tells what it does: HTTP over a Unix socket.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/enforce/dnsnames"
	"github.com/calloutd/calloutd/host/enforce/nftgateway"
	"github.com/calloutd/calloutd/host/guest"
	"github.com/calloutd/calloutd/wsk/remote"
)

// A Status is what a daemon is doing. Keys may be added.
type Status struct {
	Version string    `json:"version"`
	PID     int       `json:"pid"`
	State   string    `json:"state"` // starting, ready, reloading, draining
	Started time.Time `json:"started"`
	Uptime  float64   `json:"uptime_seconds"`

	Policy   Policy             `json:"policy"`
	Callouts map[string]Callout `json:"callouts"`
	Proxies  []Proxy            `json:"proxies"`
	Records  int                `json:"records"` // redirects of connections that exist
	Remote   *Remote            `json:"remote,omitempty"`
	Cgroup   string             `json:"cgroup,omitempty"`
	Gateway  *nftgateway.State  `json:"gateway,omitempty"`
	// Connections and Datagrams are those of the cgroup or the gateway that are carried.
	Connections *enforce.ConnectionStats `json:"connections,omitempty"`
	Datagrams   *enforce.DatagramStats   `json:"datagrams,omitempty"`
	// Names are what addresses are called, with a proxy of kind dns.
	Names  *dnsnames.Figures `json:"names,omitempty"`
	Reload Reload            `json:"reload"`
}

// A Policy is the one that is in force.
type Policy struct {
	File       string    `json:"file"`
	Generation uint64    `json:"generation"` // one more for each that came into force
	Digest     string    `json:"digest"`     // SHA-256 of the file and all files that it names
	Since      time.Time `json:"since"`
	Filters    int       `json:"filters"`
}

// A Callout has the figures of one callout since its policy is in force.
type Callout struct {
	Module    string `json:"module"`
	Decisions uint64 `json:"decisions"`
	Failures  uint64 `json:"failures"`
	// EventsDropped are those of connections that the module was too slow to hear of.
	EventsDropped uint64 `json:"events_dropped,omitempty"`
	Quarantined   string `json:"quarantined,omitempty"` // why
	// Metrics are what the callout counts itself, by the names that it gave (metric_add).
	Metrics map[string]int64 `json:"metrics,omitempty"`
}

// A Proxy is one of the policy's.
type Proxy struct {
	ID      string `json:"id"`
	Kind    string `json:"kind"`
	Address string `json:"address"`
}

// A Remote is the service for proxies that are other programs.
type Remote struct {
	Address string `json:"address"`
	remote.Stats
}

// A Reload tells of the attempts to put another policy into force.
type Reload struct {
	Attempts uint64     `json:"attempts"`
	Failures uint64     `json:"failures"`
	Error    string     `json:"error,omitempty"` // of the last attempt, if it failed
	ErrorAt  *time.Time `json:"error_at,omitempty"`
	Retired  int        `json:"retired"` // earlier policies that are kept
}

// Figures are those of a module.
func Figures(name string, s guest.Stats) Callout {
	return Callout{Module: name, Decisions: s.Decisions, Failures: s.Failures, EventsDropped: s.EventsDropped, Quarantined: s.Quarantined, Metrics: s.Metrics}
}

// A Daemon is what is told about.
type Daemon interface {
	// Status is of this moment, and the caller's.
	Status() Status
	// Health is nil while the daemon can do its work.
	Health() error
	// Reload puts the policy of the file into force; the error is why it did not.
	Reload(context.Context) error
}

// Serve answers on a listener until ctx ends.
func Serve(ctx context.Context, l net.Listener, d Daemon) error {
	srv := &http.Server{Handler: prompt(handler(d)), ReadHeaderTimeout: patience, WriteTimeout: patience, IdleTimeout: time.Minute,
		BaseContext: func(net.Listener) context.Context { return ctx }}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// patience is how long who asks may take to send a request, and to read each part of the
// answer. The answer itself may take longer to find: a reload compiles.
const patience = 10 * time.Second

// prompt gives up on who asks and then does not go on.
func prompt(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		const enough = 1 << 10 // No request has anything to say in its body.
		c := http.NewResponseController(w)
		_ = c.SetReadDeadline(time.Now().Add(patience)) // It fails only where it is closed, as the read does then.
		if _, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, enough)); err != nil {
			answer(promptly{w, c}, http.StatusBadRequest, struct {
				Error string `json:"error"`
			}{"the body of the request: " + err.Error()})
			return
		}
		_ = c.SetReadDeadline(time.Time{})
		next.ServeHTTP(promptly{w, c}, r)
	})
}

type promptly struct {
	http.ResponseWriter
	c *http.ResponseController
}

func (w promptly) Write(b []byte) (int, error) {
	_ = w.c.SetWriteDeadline(time.Now().Add(patience))
	return w.ResponseWriter.Write(b)
}

func handler(d Daemon) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, d.Status()) })
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		_ = d.Status().WriteMetrics(w) // Who asked may be gone.
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { say(w, d.Health()) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { say(w, ready(d)) })
	mux.HandleFunc("POST /v1/reload", func(w http.ResponseWriter, r *http.Request) { say(w, d.Reload(r.Context())) })
	return mux
}

func ready(d Daemon) error {
	if s := d.Status().State; s != "ready" && s != "reloading" {
		return errors.New(s)
	}
	return d.Health()
}

func say(w http.ResponseWriter, err error) {
	if err != nil {
		answer(w, http.StatusServiceUnavailable, struct {
			Error string `json:"error"`
		}{err.Error()})
		return
	}
	answer(w, http.StatusOK, struct {
		OK bool `json:"ok"`
	}{true})
}

func answer(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(v) // Who asked may be gone.
}

// Ask asks the daemon of a socket how it is.
func Ask(ctx context.Context, path string) (s Status, err error) {
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://calloutd/v1/status", nil)
	if err != nil {
		return s, err
	}
	r, err := c.Do(req)
	if err != nil {
		return s, errors.Unwrap(err) // The rest is about a URL that nobody wrote.
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return s, fmt.Errorf("the daemon answers %s", r.Status)
	}
	const most = 1 << 24
	return s, json.NewDecoder(io.LimitReader(r.Body, most)).Decode(&s)
}
