package main

import (
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/policyfile"
	"github.com/calloutd/calloutd/host/policyrun"
	"github.com/calloutd/calloutd/host/policytrace"
)

// An agent has a policy in force and tells what is decided.
type agent struct {
	runner *policyrun.Runner
	stream stream
}

func newAgent() *agent {
	a := new(agent)
	o := policyrun.Options{
		CompileApart: true, // Who sends a policy need not have written its modules.
		OnDecision: func(p *policyrun.Policy, in *fwps.Incoming, d *fwps.Decision) {
			if d.Decider() != nil { // What no filter decided is not worth a line.
				e, _ := policytrace.Reader{Policy: p}.Decision(in, d)
				a.stream.send(e)
			}
		},
		OnRedirect: func(ev ale.RedirectEvent) {
			e, _ := a.reader().Redirect(ev)
			a.stream.send(e)
		},
	}
	if cache, err := os.UserCacheDir(); err == nil {
		o.CacheDir = filepath.Join(cache, "calloutd", "wasm")
	}
	a.runner = policyrun.New(o)
	return a
}

func (a *agent) reader() policytrace.Reader { return policytrace.Reader{Policy: a.runner.Policy()} }

func (a *agent) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /policy", a.put)
	mux.HandleFunc("GET /decisions", a.decisions)
	return mux
}

// put puts a policy into force, with all that it names, or nothing of it.
func (a *agent) put(w http.ResponseWriter, r *http.Request) {
	src, err := io.ReadAll(io.LimitReader(r.Body, policyfile.MaxSize+1)) // Parse says that it is too long.
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	file, err := policyfile.Parse("policy", src)
	if err == nil {
		// The modules that it names are those in this folder.
		err = a.runner.Use(r.Context(), "policy", file)
	}
	switch {
	case errors.Is(err, policyrun.ErrClosed):
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	case err != nil: // Every mistake, with its place.
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

// decisions writes what is decided from now on, in the form of run --events.
func (a *agent) decisions(w http.ResponseWriter, r *http.Request) {
	events, stop := a.stream.follow()
	defer stop()
	w.Header().Set("Content-Type", "application/x-ndjson")
	flush := http.NewResponseController(w)
	log := policytrace.NewLog(w)
	flush.Flush()
	for {
		select {
		case e, ok := <-events:
			if !ok {
				return
			}
			log.Write(e)
			if errors.Join(log.Err(), flush.Flush()) != nil {
				return
			}
		case <-r.Context().Done():
			return
		}
	}
}
