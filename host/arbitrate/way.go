package arbitrate

import (
	"hash/maphash"
	"math/bits"
	"math/rand/v2"
	"slices"

	"github.com/calloutd/calloutd/host/fwpm"
)

// A way leads from a node to filters by exact values of a field.
type way uint8

// The ways, the most selective first.
const (
	byApp way = iota
	byNear
	byUser
	byLocalPort
	byMiddle
	byPort
	byFar
	byBin // of remote ports: ranges of them
	ways
)

// Three ways are by remote prefix: one of a few addresses tells more than a user,
// one of half the world less than a port.
const (
	farBits4, middleBits4 = 8, 16
	farBits6, middleBits6 = 16, 32
)

// A wayset are the ways that were gone to come to a bucket.
type wayset uint8

const byRemote = 1<<byNear | 1<<byMiddle | 1<<byFar

// with is s and w; prefixes are gone by once.
func (s wayset) with(w way) wayset {
	s |= 1 << w
	if s&byRemote != 0 {
		s |= byRemote
	}
	return s
}

// reach is the most selective way to a filter that is not used yet, ways if there
// is none.
func (e *entry) reach(used wayset) way {
	for w := range ways {
		if used&(1<<w) == 0 && e.exact(w) {
			return w
		}
	}
	return ways
}

// A target is a bucket below a node: its key, and the length of its prefix if it is
// one.
type target struct {
	key    uint64
	bits   uint8
	prefix bool
}

// targets appends the buckets below a node to which a way leads for the filter.
func (e *entry) targets(to []target, w way, node uint64) []target {
	add := func(key uint64) {
		if !slices.ContainsFunc(to, func(t target) bool { return t.key == key }) { // The same value twice is one.
			to = append(to, target{key: key})
		}
	}
	switch {
	case w == byApp && e.f.app != "":
		add(key(node, w, appHash(e.f.app)))
		return to
	case w == byUser && e.has&hasUser != 0:
		add(key(node, w, uint64(e.user)))
		return to
	case w == byPort && e.has&hasPort != 0:
		add(key(node, w, uint64(e.low)))
		return to
	case w == byBin:
		for bin := e.low / portBin; bin <= e.high/portBin; bin++ {
			add(key(node, w, uint64(bin)))
		}
		return to
	case byRemote&(1<<w) != 0:
		return e.prefixes(to, node)
	}
	g := e.f.group([ways]fwpm.ConditionID{byApp: fwpm.ConditionALEAppID, byUser: fwpm.ConditionALEUserID,
		byLocalPort: fwpm.ConditionIPLocalPort, byPort: fwpm.ConditionIPRemotePort}[w])
	for i := range g {
		switch w {
		case byApp:
			add(key(node, w, appHash(g[i].more.text)))
		case byUser:
			add(key(node, w, uint64(g[i].more.aces[0].id)))
		default:
			add(key(node, w, g[i].low))
		}
	}
	return to
}

// prefixes is targets of remote prefixes.
func (e *entry) prefixes(to []target, node uint64) []target {
	g := e.f.group(fwpm.ConditionIPRemoteAddress)
	if len(g) == 0 {
		n := 32 - e.free
		return append(to, target{prefixKey(node, n, uint64(e.addr)), n, true})
	}
	for i := range g {
		p, _ := g[i].prefix()
		value := p.lo
		if p.six {
			value = fold(p.hi, p.lo)
		}
		t := target{prefixKey(node, p.bits, value), p.bits, true}
		if !slices.Contains(to, t) {
			to = append(to, t)
		}
	}
	return to
}

// The hashes are of this process alone, so that nobody can choose filters that meet
// in one bucket.
var (
	appSeed      = maphash.MakeSeed()
	seedA, seedB = rand.Uint64() | 1, rand.Uint64() | 1
)

// appHash is by words where a text has one and not more than four, as most paths of
// programs: a call of maphash takes twice as long.
func appHash(s string) uint64 {
	n := len(s)
	if n < 8 || n > 32 {
		return maphash.String(appSeed, s)
	}
	h := fold(word(s, 0)^uint64(n), word(s, n-8))
	if n > 16 {
		h = fold(h^word(s, 8), word(s, n-16))
	}
	return h
}

// word is eight bytes of a text, which the compiler reads as one.
func word(s string, at int) uint64 {
	s = s[at : at+8]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 | uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

// key is the hash of a way from a node by a value.
func key(node uint64, w way, value uint64) uint64 {
	return fold(node^uint64(w+1)<<56, value)
}

func prefixKey(node uint64, bits uint8, value uint64) uint64 {
	return fold(node^uint64(bits)<<48^1<<63, value)
}

// fold mixes two words.
func fold(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a^seedA, b^seedB)
	return hi ^ lo
}
