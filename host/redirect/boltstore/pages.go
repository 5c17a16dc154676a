package boltstore

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"os"
)

// What bbolt has no checksum for is checked before it reads a file: that its pages are a
// tree. One that is its own child would have it go round, and take memory, without end.
//
// The file format is bbolt's version 2, in the byte order of the machine: a page begins
// with its number (64 bits), its flags and the number of its elements (16 bits each), and
// how many pages it has besides the first (32 bits). An element has 16 bytes.
const (
	pageHeader  = 16
	element     = 16
	branchFlag  = 1
	leafFlag    = 2
	bucketFlag  = 1
	metaLen     = 56 // and a checksum: FNV-1a
	metaRoot    = 16
	metaPages   = 40
	metaVersion = 48 // the number of the transaction
)

var native = binary.NativeEndian

type pages struct {
	file *os.File
	size int64
	used []bool
}

func checkPages(path string, pageSize int) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	p := pages{file: f, size: int64(pageSize)}
	newest, err := p.metadata()
	if err != nil {
		return err
	}
	p.used = make([]bool, min(native.Uint64(newest[metaPages:]), uint64(info.Size()/p.size)))
	return p.tree(native.Uint64(newest[metaRoot:]), true)
}

// metadata returns the newer one of the two pages of metadata, which must both be whole.
// bbolt goes by the newer one that is: of a file whose newest page is damaged it would
// take the state before the last batch, as if that had never been. A crash leaves both
// whole, since what is in one is less than the least that a disk writes.
func (p *pages) metadata() (newest []byte, err error) {
	for page := range int64(2) {
		meta := make([]byte, metaLen+8)
		if err := p.read(meta, page*p.size+pageHeader); err != nil {
			return nil, err
		}
		sum := fnv.New64a()
		sum.Write(meta[:metaLen])
		if sum.Sum64() != native.Uint64(meta[metaLen:]) {
			return nil, fmt.Errorf("%w: its page %d is not as it was written, and without it the last changes may be missing", ErrDamaged, page)
		}
		if newest == nil || native.Uint64(meta[metaVersion:]) > native.Uint64(newest[metaVersion:]) {
			newest = meta
		}
	}
	return newest, nil
}

func (p *pages) read(b []byte, at int64) error {
	if _, err := p.file.ReadAt(b, at); err != nil {
		return explain(err)
	}
	return nil
}

// tree goes through the pages from one on, and those of the buckets that are in it.
func (p *pages) tree(id uint64, buckets bool) error {
	b, err := p.page(id, buckets)
	if err != nil {
		return err
	}
	leaf := native.Uint16(b[8:]) == leafFlag
	for at := pageHeader; at < pageHeader+element*int(native.Uint16(b[10:])); at += element {
		if at+element > len(b) {
			return fmt.Errorf("%w: its page %d has more elements than room", ErrDamaged, id)
		}
		child := native.Uint64(b[at+8:])
		if leaf {
			child = bucket(b, at)
		}
		if leaf && child == 0 {
			continue
		}
		if err := p.tree(child, buckets && !leaf); err != nil {
			return err
		}
	}
	return nil
}

// bucket is the first page of the bucket of an element; zero if it has none, because it
// is small enough to be a part of this one, and that of the metadata if it is out of place.
func bucket(b []byte, at int) uint64 {
	if native.Uint32(b[at:])&bucketFlag == 0 {
		return 0
	}
	value := uint64(at) + uint64(native.Uint32(b[at+4:])) + uint64(native.Uint32(b[at+8:]))
	if value+8 > uint64(len(b)) {
		return 1
	}
	return native.Uint64(b[value:])
}

// page reads a page that was not there before; of one with records, what is in its first
// bytes.
func (p *pages) page(id uint64, buckets bool) ([]byte, error) {
	header := make([]byte, pageHeader)
	if id >= uint64(len(p.used)) {
		return nil, fmt.Errorf("%w: its page %d of %d is wanted", ErrDamaged, id, len(p.used))
	}
	if err := p.read(header, int64(id)*p.size); err != nil {
		return nil, err
	}
	flags, more := native.Uint16(header[8:]), uint64(native.Uint32(header[12:]))
	if native.Uint64(header) != id || flags != leafFlag && flags != branchFlag || id+more >= uint64(len(p.used)) {
		return nil, fmt.Errorf("%w: its page %d is none of records", ErrDamaged, id)
	}
	for i := id; i <= id+more; i++ {
		if p.used[i] {
			return nil, fmt.Errorf("%w: its page %d is there twice", ErrDamaged, i)
		}
		p.used[i] = true
	}
	if flags == leafFlag && !buckets {
		native.PutUint16(header[10:], 0)
		return header, nil
	}
	b := make([]byte, (int64(more)+1)*p.size)
	return b, p.read(b, int64(id)*p.size)
}
