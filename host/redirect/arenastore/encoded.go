package arenastore

import "github.com/calloutd/calloutd/host/redirect"

// AppendEncoded appends the encoding of a live hop to b (see redirect.DecodeHop).
func (s *Store) AppendEncoded(b []byte, serial uint64) ([]byte, error) {
	x := hash(serial)
	d := s.shard(serial)
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.table(x).find(x, serial)
	if e == nil {
		return b, redirect.ErrNotFound
	}
	return d.appendEncoded(b, e)
}

// Serials returns the serials of all live hops, in no order. A hop that comes or
// goes meanwhile is among them or not.
func (s *Store) Serials() []uint64 {
	serials := make([]uint64, 0, s.Len())
	for i := range s.shards {
		serials = s.shards[i].appendSerials(serials)
	}
	return serials
}

func (d *shard) appendSerials(serials []uint64) []uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range d.tables {
		for _, e := range d.tables[i].entries {
			if e.ref != 0 {
				serials = append(serials, e.serial)
			}
		}
	}
	return serials
}
