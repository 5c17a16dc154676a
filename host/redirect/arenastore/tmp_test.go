package arenastore_test

import (
	"testing"

	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/host/redirect/arenastore"
)

func BenchmarkScale(b *testing.B) {
	b.Run("pure", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			var h redirect.Hop
			buf := make([]byte, 0, 2048)
			for i := 0; pb.Next(); i++ {
				setHop(&h, uint64(i))
				buf, _ = h.AppendBinary(buf[:0])
			}
		})
	})
	b.Run("own", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			s := arenastore.New(arenastore.Options{})
			const live = 1000
			var ring [live]redirect.Hop
			for i := 0; pb.Next(); i++ {
				h := &ring[i%live]
				if i >= live {
					_ = s.Release(h.Serial)
				}
				setHop(h, uint64(i))
				_ = s.Put(h)
			}
		})
	})
}
