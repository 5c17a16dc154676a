package carry

import (
	"cmp"
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/loglimit"
)

const (
	// DefaultBytes is a Budget unless another one is wanted: 32,000 datagrams of the sizes that
	// networks carry, and little enough for a router.
	DefaultBytes = 64 << 20

	// DefaultFlows is how many of them it has unless it is said.
	DefaultFlows = 1 << 15

	flowQueue = 32 // datagrams
)

// A Budget is what the datagrams of all flows may take of the memory, apart from a small one
// each way of each flow. Who floods more loses them, as with a network, and does not end
// the process that decides.
type Budget struct {
	most  int64 // bytes
	logf  func(format string, args ...any)
	bytes atomic.Int64
	flows *Shares

	lost [len(losses)]struct {
		atomic.Uint64
		told loglimit.Kind
	}
}

// NewBudget returns a budget of so many bytes and flows, zero for DefaultBytes and DefaultFlows.
// logf hears that datagrams get lost, and for each reason how many, once a second.
func NewBudget(bytes, flows int64, logf func(format string, args ...any)) *Budget {
	return &Budget{most: cmp.Or(bytes, DefaultBytes), logf: logf, flows: NewShares(cmp.Or(flows, DefaultFlows))}
}

// A loss is why a datagram got lost.
type loss int

const (
	noMemory loss = iota
	fullQueue
	tooManyFlows
)

var losses = [...]struct{ name, why string }{
	noMemory:     {enforce.LostForMemory, "those that wait take all the memory that there is for them"},
	fullQueue:    {enforce.LostForQueue, fmt.Sprintf("%d of its flow wait", flowQueue)},
	tooManyFlows: {enforce.LostForFlows, "there are as many flows as may be, or as many of one host or user as are left for others"},
}

func (b *Budget) lose(why loss) {
	b.lost[why].Add(1)
	if _, ok := b.lost[why].told.Pass(1); ok {
		b.logf("datagrams get lost, %d up to now: %s", b.lost[why].Load(), losses[why].why)
	}
}

// Stats are the figures of this moment.
func (b *Budget) Stats() enforce.DatagramStats {
	s := enforce.DatagramStats{Flows: b.flows.Taken(), Bytes: b.bytes.Load(), MaxBytes: b.most, Lost: map[string]uint64{}}
	for i, l := range losses {
		s.Lost[l.name] = b.lost[i].Load()
	}
	return s
}

// A Flow is the datagrams there and back between two.
type Flow struct {
	of     *Budget
	by     Taker
	queued atomic.Int64 // bytes
	queue  chan *datagram
}

// Flow returns a new one of a host or a user, nil if there are too many, as with Shares: then a datagram is lost.
func (b *Budget) Flow(by Taker) *Flow {
	if !b.flows.Take(by) {
		b.lose(tooManyFlows)
		return nil
	}
	return &Flow{of: b, by: by, queue: make(chan *datagram, flowQueue)}
}

// End ends a flow that nothing is put to and that nobody carries any more.
func (f *Flow) End() {
	for {
		select {
		case d := <-f.queue:
			f.free(d)
		default:
			f.of.flows.Leave(f.by)
			return
		}
	}
}

// A datagram is one in memory.
type datagram struct {
	room []byte
	n    int           // bytes of room that it has
	way  *atomic.Int64 // where room is counted
}

// Room for datagrams of 2 KiB and each power of two above.
const smallest = 11

var rooms [17 - smallest]sync.Pool

// room is memory for a datagram that goes one way, whose bytes are counted, nil if there is
// none. A small one that is alone there always has it: so that of who comes late, however
// much others have, something is carried, and answered before it is forgotten.
func (f *Flow) room(n int, way *atomic.Int64) *datagram {
	class := max(bits.Len(uint(max(n-1, 0))), smallest) - smallest
	size := int64(1) << (class + smallest)
	all, own := f.of.bytes.Add(size), way.Add(size)
	if all > f.of.most && own > 1<<smallest {
		f.give(size, way)
		f.of.lose(noMemory)
		return nil
	}
	d, _ := rooms[class].Get().(*datagram)
	if d == nil {
		d = &datagram{room: make([]byte, size)}
	}
	d.n, d.way = n, way
	return d
}

func (f *Flow) free(d *datagram) {
	size, way := len(d.room), d.way
	rooms[bits.Len(uint(size-1))-smallest].Put(d)
	f.give(int64(size), way)
}

func (f *Flow) give(size int64, way *atomic.Int64) {
	way.Add(-size)
	f.of.bytes.Add(-size)
}

// Put queues a copy of a datagram.
func (f *Flow) Put(b []byte) {
	d := f.room(len(b), &f.queued)
	if d == nil {
		return
	}
	copy(d.room, b)
	select {
	case f.queue <- d:
	default:
		f.free(d)
		f.of.lose(fullQueue)
	}
}
