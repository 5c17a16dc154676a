package flight

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protowire"
)

// magic begins every part, with the version of the format.
var magic = []byte("CFLT\x01")

// A Reader reads entries, one at a time.
type Reader struct {
	in     counter
	z      *gzip.Reader
	part   *bufio.Reader // of z
	inside bool          // a part
	header Header
	buf    []byte
	names  names
	whole  int64 // where the last whole part ends
	torn   bool
}

// A counter counts what is read. It is a io.ByteReader, so that the decompressor
// reads no more than a part.
type counter struct {
	*bufio.Reader
	n int64
}

func (c *counter) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.n += int64(n)
	return n, err
}

func (c *counter) ReadByte() (byte, error) {
	b, err := c.Reader.ReadByte()
	if err == nil {
		c.n++
	}
	return b, err
}

// NewReader reads a file.
func NewReader(in io.Reader) *Reader {
	z := new(gzip.Reader)
	return &Reader{in: counter{Reader: bufio.NewReaderSize(in, 64<<10)}, z: z, part: bufio.NewReaderSize(cutOff{z}, 64<<10)}
}

var errTorn = errors.New("the file ends within a part")

// cutOff tells a file that ends too early from a message that does.
type cutOff struct{ io.Reader }

func (c cutOff) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	if err == io.ErrUnexpectedEOF {
		err = errTorn
	}
	return n, err
}

// Header is that of the entry that was read last.
func (r *Reader) Header() Header { return r.header }

// Offset is how much of the file was read, in bytes.
func (r *Reader) Offset() int64 { return r.in.n }

// Torn reports, after the end, that the last part was cut off: the program that
// wrote it died. What there is of it was read.
func (r *Reader) Torn() bool { return r.torn }

// Next reads an entry. After the last one it is io.EOF; other errors wrap ErrCorrupt or are those of reading.
func (r *Reader) Next() (*Entry, error) {
	n := new(Entry)
	for {
		if !r.inside {
			if err := r.begin(); err != nil {
				return nil, r.end(err)
			}
		}
		number, b, err := r.message()
		switch {
		case err == io.EOF:
			r.inside, r.whole = false, r.in.n
			continue
		case err != nil:
			return nil, r.end(err)
		}
		switch number {
		case partHeader:
			err = r.header.decode(b)
		case partEntry:
			if err = n.decode(b, &r.names); err == nil {
				return n, nil
			}
		}
		if err != nil {
			return nil, r.at(err)
		}
	}
}

func (r *Reader) at(err error) error { return fmt.Errorf("before byte %d: %w", r.in.n, err) }

// end says what an error at the end of a part means.
func (r *Reader) end(err error) error {
	switch {
	case err == io.EOF:
		return io.EOF
	case errors.Is(err, errTorn):
		r.torn = true
		return io.EOF
	case errors.Is(err, ErrCorrupt):
		return r.at(err)
	case errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum), errors.As(err, new(flate.CorruptInputError)):
		return r.at(fmt.Errorf("%w: %w", ErrCorrupt, err))
	}
	return r.at(err)
}

// begin begins a part.
func (r *Reader) begin() error {
	if _, err := r.in.Peek(1); err != nil {
		return err
	}
	if err := r.z.Reset(&r.in); err != nil {
		if err == io.ErrUnexpectedEOF { // Something is there, see above.
			err = errTorn
		}
		return err
	}
	r.z.Multistream(false)
	head := make([]byte, len(magic))
	if _, err := io.ReadFull(r.part, head); err != nil {
		return short(err)
	}
	switch {
	case !bytes.Equal(head[:4], magic[:4]):
		return fmt.Errorf("%w: it is compressed, but no flight file", ErrCorrupt)
	case head[4] != magic[4]:
		return fmt.Errorf("%w: version %d of the format, this program reads %d", ErrCorrupt, head[4], magic[4])
	}
	r.header, r.inside = Header{}, true
	return nil
}

// number reads a varint, or is io.EOF at the end of the part.
func (r *Reader) number() (uint64, error) {
	b, err := r.part.Peek(binary.MaxVarintLen64)
	if len(b) == 0 {
		return 0, err
	}
	v, n := protowire.ConsumeVarint(b)
	switch {
	case n > 0:
		_, err = r.part.Discard(n)
		return v, err
	case err != nil:
		return 0, short(err)
	}
	return 0, fmt.Errorf("%w: %w", ErrCorrupt, protowire.ParseError(n))
}

// message reads one of the part.
func (r *Reader) message() (protowire.Number, []byte, error) {
	tag, err := r.number()
	if err != nil {
		return 0, nil, err
	}
	number, t := protowire.DecodeTag(tag)
	if t != protowire.BytesType {
		return 0, nil, fmt.Errorf("%w: field %d is no message", ErrCorrupt, number)
	}
	size, err := r.number()
	switch {
	case err != nil:
		return 0, nil, short(err)
	case size > MaxMessage:
		return 0, nil, fmt.Errorf("%w: a message of %d bytes, at most %d are read", ErrCorrupt, size, MaxMessage)
	}
	if uint64(cap(r.buf)) < size {
		r.buf = make([]byte, size)
	}
	b := r.buf[:size]
	if _, err := io.ReadFull(r.part, b); err != nil {
		return 0, nil, short(err)
	}
	return number, b, nil
}

// short is the end of a whole part within a message.
func short(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("%w: a part ends within a message", ErrCorrupt)
	}
	return err
}
