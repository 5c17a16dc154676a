package main

import (
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/host/redirect/boltstore"
	"github.com/calloutd/calloutd/host/redirect/memstore"
)

// records says where redirect records are kept: in memory, or in a file too, in
// which the next run finds those that a crash left.
type records struct{ path string }

func (r *records) flags(f *pflag.FlagSet) {
	f.StringVar(&r.path, "records", "", "keep redirect records in this file too, so that they are good after a crash")
}

// recoveredLife is how long the records of an earlier run are known for the sake of
// who still has them: a proxy that goes on with what it accepted. Nobody tells when
// it is done.
const recoveredLife = 2 * time.Minute

// open returns the store and what closes it. The tracer's policies have the key of
// the file: what an earlier run sealed opens, and its redirects are those of the
// callouts of the same name. Its records are told and known for a while.
func (r *records) open(t *tracer) (redirect.Store, func(), error) {
	if r.path == "" {
		return memstore.New(0), func() {}, nil
	}
	var recovered redirect.Records
	s, err := boltstore.Open(boltstore.Options{Path: r.path, OnRecover: func(h *redirect.Hop) bool {
		t.logf("%s: an earlier run ended before a connection: %s (process %d) to %v was redirected to %v by callout %s, filter %d",
			r.path, h.AppID, h.ProcessID, h.Original, h.Target, h.Callout, h.FilterID)
		recovered = append(recovered, &redirect.Hop{Serial: h.Serial})
		return true
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
	key := s.SealKey()
	t.seal = &key
	forget := time.AfterFunc(recoveredLife, func() { redirect.Release(s, recovered) })
	return s, func() {
		if forget.Stop() {
			redirect.Release(s, recovered)
		}
		if err := s.Close(); err != nil {
			t.logf("%v", err)
		}
	}, nil
}
