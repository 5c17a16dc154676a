package main

import (
	"fmt"

	"github.com/spf13/pflag"

	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/host/redirect/boltstore"
	"github.com/calloutd/calloutd/host/redirect/memstore"
)

// records says where redirect records are kept: in memory, or in a file too, in
// which the next run finds those that a crash left.
type records struct{ path string }

func (r *records) flags(f *pflag.FlagSet) {
	f.StringVar(&r.path, "records", "", "keep redirect records in this file too, so that a crash does not lose them")
}

// open returns the store and what closes it. Records that an earlier run left are
// told and given up: their connections ended with it.
func (r *records) open(t *tracer) (redirect.Store, func(), error) {
	if r.path == "" {
		return memstore.New(0), func() {}, nil
	}
	s, err := boltstore.Open(boltstore.Options{Path: r.path, OnRecover: func(h *redirect.Hop) bool {
		t.logf("%s: an earlier run ended before a connection: %s (process %d) to %v was redirected to %v by callout %s, filter %d",
			r.path, h.AppID, h.ProcessID, h.Original, h.Target, h.Callout, h.FilterID)
		return false
	}, OnWrite: func(err error) {
		if err != nil {
			t.logf("%s: cannot be written, so redirects are refused: %v", r.path, err)
			return
		}
		t.logf("%s: can be written again", r.path)
	}})
	if err != nil {
		return nil, nil, fmt.Errorf("--records: %w", err)
	}
	return s, func() {
		if err := s.Close(); err != nil {
			t.logf("%v", err)
		}
	}, nil
}
