// Package explore serves the page on which somebody edits a connection and sees it
// travel through a policy.
package explore

import (
	"context"
	"crypto/rand"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"path"
	"sync"
	"time"
)

//go:embed page
var page embed.FS

// MaxRequest is how long a request can be, in bytes.
const MaxRequest = 64 << 10

// Options configure a Server.
type Options struct {
	Policies []string // Required: what they are called.
	// Cases are the connections that the page offers for a policy. It begins with one of
	// the first policy's: a redirect or else a block, since a permit shows little.
	// Optional: with one to an address for documentation.
	Cases func(policy string) []Case
	// Look takes a connection through a policy: what happened, each an event in JSON.
	// Required. The error is why the policy cannot be asked.
	Look func(context.Context, Question) ([]json.RawMessage, error)
	// Problems are the parts of an error, each in JSON. Required.
	Problems func(error) []json.RawMessage
}

// A Server answers the page.
type Server struct {
	opts  Options
	token string
	turn  chan struct{} // how many looks there are at a time

	mu      sync.Mutex
	version int
	changed chan struct{} // closed at the next change
}

// New returns a Server with a token of its own.
func New(o Options) *Server {
	return &Server{opts: o, token: rand.Text(), turn: make(chan struct{}, 2), changed: make(chan struct{})}
}

// Path is what follows the address: the token, so that others on this system who
// can connect do not read the policies.
func (s *Server) Path() string { return "/" + s.token + "/" }

// Changed tells the pages that a policy is another one now.
func (s *Server) Changed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	close(s.changed)
	s.changed = make(chan struct{})
}

// now is the version and what is closed when it is over.
func (s *Server) now() (version int, over <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.version, s.changed
}

// Serve answers on a listener until ctx ends.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{Handler: s.Handler(), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, IdleTimeout: time.Minute,
		BaseContext: func(net.Listener) context.Context { return ctx }}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Handler is the page and what it asks.
func (s *Server) Handler() http.Handler {
	files, err := fs.Sub(page, "page")
	if err != nil {
		panic(err) // The folder is part of the program.
	}
	mux := http.NewServeMux()
	mux.Handle("GET "+s.Path(), http.StripPrefix(s.Path(), typed(http.FileServerFS(files))))
	mux.HandleFunc("GET "+s.Path()+"api/policies", s.policies)
	mux.HandleFunc("GET "+s.Path()+"api/changes", s.changes)
	mux.HandleFunc("POST "+s.Path()+"api/look", s.look)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "there is nothing here. Each run of calloutd explore has an address of its own: put what your link has after # behind the one that it printed", http.StatusNotFound)
	})
	return guard(mux)
}

// types are those of the page's files: a system may have others for their names, and
// browsers run no module of another one.
var types = map[string]string{".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}

func typed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if t, ok := types[path.Ext(r.URL.Path)]; ok {
			w.Header().Set("Content-Type", t+"; charset=utf-8")
		}
		next.ServeHTTP(w, r)
	})
}

// A Case is a connection with a name.
type Case struct {
	Name       string     `json:"name"`
	Action     string     `json:"action"` // what its author expects; empty: that was not said
	Connection Connection `json:"connection"`
}

// A policy is one that can be looked at, with its cases of now.
type policy struct {
	Name  string `json:"name"`
	Cases []Case `json:"cases"`
}

func (s *Server) policies(w http.ResponseWriter, _ *http.Request) {
	var out []policy
	for _, name := range s.opts.Policies {
		p := policy{name, []Case{}}
		if s.opts.Cases != nil {
			p.Cases = append(p.Cases, s.opts.Cases(name)...)
		}
		out = append(out, p)
	}
	answer(w, http.StatusOK, out)
}

// An Answer is what became of a question: what happened, or what is wrong with it
// or with the policy.
type Answer struct {
	Events   []json.RawMessage `json:"events,omitempty"` // as sim --json --verbose prints them
	Mistakes []Mistake         `json:"mistakes,omitempty"`
	Problems []json.RawMessage `json:"problems,omitempty"`
	Error    string            `json:"error,omitempty"` // it was no request
}

func (s *Server) look(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxRequest))
	if err != nil {
		answer(w, http.StatusRequestEntityTooLarge, Answer{Error: fmt.Sprintf("the request is longer than %d bytes or did not come whole: %v", MaxRequest, err)})
		return
	}
	q, mistakes, err := parse(body, s.opts.Policies)
	switch {
	case err != nil:
		answer(w, http.StatusBadRequest, Answer{Error: err.Error()})
		return
	case len(mistakes) > 0:
		answer(w, http.StatusOK, Answer{Mistakes: mistakes})
		return
	}
	select {
	case s.turn <- struct{}{}:
	case <-r.Context().Done():
		return // Nobody waits for it any more.
	}
	defer func() { <-s.turn }()
	events, err := s.opts.Look(r.Context(), q)
	if err != nil {
		answer(w, http.StatusOK, Answer{Problems: s.opts.Problems(err)})
		return
	}
	answer(w, http.StatusOK, Answer{Events: events})
}

// changes is a line for each change, as server-sent events.
func (s *Server) changes(w http.ResponseWriter, r *http.Request) {
	flush := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	for {
		version, over := s.now()
		fmt.Fprintf(w, "data: %d\n\n", version)
		if flush.Flush() != nil {
			return
		}
		select {
		case <-over:
		case <-r.Context().Done():
			return
		}
	}
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// Who does not read the answer needs none.
	_ = json.NewEncoder(w).Encode(v)
}
