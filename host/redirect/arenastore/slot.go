package arenastore

import "encoding/binary"

// A slot holds one hop: the length of its encoding (32 bits) and the encoding,
// which begins with the serial. What is in a slot that nobody has is anything.
const (
	slotHop  = 4
	grain    = 16 // what the size of a slot is a multiple of
	minSlot  = 64
	maxSlot  = slabSize
	maxSlots = slabSize / minSlot
)

func slotLen(b []byte) int       { return int(binary.LittleEndian.Uint32(b)) }
func setSlotLen(b []byte, n int) { binary.LittleEndian.PutUint32(b, uint32(n)) }
func slotSerial(b []byte) uint64 { return binary.LittleEndian.Uint64(b[slotHop:]) }

// sizes are the sizes of slots by class, about a sixteenth apart; there is no
// class 0. classes are the classes by size in grains.
var sizes, classes = func() (sizes []int, classes [maxSlot/grain + 1]uint8) {
	sizes = []int{0}
	for size := minSlot; size <= maxSlot; {
		size = slabSize / (slabSize / size) &^ (grain - 1) // all that fits in as many slots
		for i := sizes[len(sizes)-1]/grain + 1; i <= size/grain; i++ {
			classes[i] = uint8(len(sizes))
		}
		sizes = append(sizes, size)
		size += max(grain, size/16&^(grain-1))
	}
	return sizes, classes
}()

// classFor is the class of a hop whose encoding has n bytes.
func classFor(n int) uint8 { return classes[(slotHop+n+grain-1)/grain] }

// A ref is the place of a slot: the number of its region and its grain there, plus
// one, so that zero is none.
type ref uint32

const (
	grainsPerSlab   = slabSize / grain
	grainsPerRegion = regionSize / grain
)

func makeRef(slab uint32, at int) ref { return ref(slab*grainsPerSlab+uint32(at/grain)) + 1 }

// slab is the id of the slab, at the place in it.
func (r ref) slab() uint32 { return uint32(r-1) / grainsPerSlab }
func (r ref) at() int      { return int(r-1) % grainsPerSlab * grain }
