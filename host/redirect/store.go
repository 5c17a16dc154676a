package redirect

import "errors"

// Errors of a Store.
var (
	ErrNotFound    = errors.New("redirect: no such hop")
	ErrFull        = errors.New("redirect: the record store is full")
	ErrExists      = errors.New("redirect: a hop with this serial is on record")
	ErrUnavailable = errors.New("redirect: the record store keeps no hops now")
	ErrTooLarge    = errors.New("redirect: the hop is too large to keep")
)

// A Store keeps the hops of live connections. Every holder of a hop (the
// redirected connection, an accepted socket, a socket that carries its sealed
// record) has one reference; the hop goes with the last one (AMB-19).
//
// Every error wraps one of this package's and says what a person can do about it.
// Implementations are safe for concurrent use and pass storetest.Run. A panic goes to
// whoever connects or closes, who may recover; in a goroutine of wsk's it ends the process.
type Store interface {
	// NewSerial returns a serial for a new hop, larger than zero, that it never
	// returned before; that of a store which outlives its process, in no process.
	// A store finds the hops of its own serials fastest.
	NewSerial() uint64
	// Put keeps h under h.Serial with one reference. When it returns nil, every
	// later Acquire sees h; nobody modifies h afterwards. A full store refuses
	// with ErrFull: it never drops a live hop. ErrExists says that the serial is
	// taken, ErrTooLarge that the store has no room for one hop of this size,
	// ErrUnavailable that what the store needs, such as a disk, fails.
	Put(h *Hop) error
	// Replace puts h in the place of the hop with its serial, which keeps its
	// references; ErrNotFound if there is none.
	Replace(h *Hop) error
	// Acquire takes one more reference and returns the hop, or ErrNotFound. A
	// blob without bytes is none (AMB-12), and comes back as nil or without bytes.
	Acquire(serial uint64) (*Hop, error)
	// Retain takes one more reference for a holder that has the hop already. Whoever
	// was told ErrNotFound by it or by Acquire calls Release all the same, so that
	// the two fail for no other reason: what can be unreachable, such as a server,
	// is not where references are counted.
	Retain(serial uint64) error
	// Release gives one reference back. The last one deletes the hop.
	// Releasing an unknown serial reports ErrNotFound.
	Release(serial uint64) error
	// Len is the number of live hops.
	Len() int
}
