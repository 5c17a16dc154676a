package policytest_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/policytest"
)

// BenchmarkClassify are the five classifications that a connection needs: the floor.
func BenchmarkClassify(b *testing.B) {
	w := world(b)
	space := policytest.Boundaries(w)
	layers := []fwpm.LayerID{fwpm.LayerALEBindRedirectV4, fwpm.LayerALEResourceAssignmentV4, fwpm.LayerALEConnectRedirectV4, fwpm.LayerALEAuthConnectV4, fwpm.LayerALEFlowEstablishedV4}
	var d fwps.Decision
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		in := space.At(i % space.Size())
		for _, l := range layers {
			in.Layer = l.ForFamily(in.Remote.Addr().Is6())
			w.Classifier.Classify(b.Context(), &in, &d)
		}
	}
}

// BenchmarkDecide is a described connection through all layers.
func BenchmarkDecide(b *testing.B) {
	w := world(b).Quiet()
	space := policytest.Boundaries(w)
	r := w.Record()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%policytest.Renewed == 0 {
			r = w.Record()
		}
		_, err := w.Decide(b.Context(), r, space.At(i%space.Size()))
		require.NoError(b, err)
	}
}

// BenchmarkOver compares a policy with itself, and with one that decides everything
// otherwise, as diff --over does: an operation is one connection decided by both.
func BenchmarkOver(b *testing.B) {
	w := world(b)
	other, _ := filters(b, "- {name: all, layer: ALE_AUTH_CONNECT, action: block}\n- {name: in, layer: ALE_AUTH_RECV_ACCEPT, action: block}\n")
	space := policytest.Boundaries(w)
	for _, c := range []struct {
		name string
		with *policytest.World
	}{{"nothing changes", w}, {"much changes", other}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			questions := func(yield func(policytest.Question, error) bool) {
				for i := 0; b.Loop() && yield(policytest.Question{In: space.At(i % space.Size())}, nil); i++ {
				}
			}
			changed := 0
			n, err := policytest.Compare(w, c.with).Over(b.Context(), questions, func(*policytest.Change) error { changed++; return nil })
			require.NoError(b, err)
			require.Equal(b, c.with != w, changed > n/3)
		})
	}
}
