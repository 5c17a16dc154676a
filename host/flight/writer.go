package flight

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/sdk/project/wholefile"
)

const (
	// partSize is how much is compressed at once.
	partSize = 256 << 10
	// partAge is how old what is not yet in the file can become.
	partAge = time.Second
)

// A Writer appends entries to a file. It is safe for concurrent use. Each part
// is written at once and says all that is needed to read it, so that files can be
// put together with cat.
type Writer struct {
	header Header

	mu     sync.Mutex // held while the file is waited for
	begun  []byte     // the header of a part
	part   []byte
	closed bool
	failed atomic.Pointer[error]

	parts chan []byte
	done  chan struct{}
}

// Append opens a file for writing. What a program that died left of its last part
// is taken away. Other processes can append to the file at the same time.
func Append(path string, h Header) (*Writer, error) {
	if err := wholefile.Regular(path); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600) // It may hold secrets.
	if err != nil {
		return nil, err
	}
	if err := mend(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return NewWriter(shared{f}, h), nil
}

// mend takes away what is behind the last whole part. The second look is at what others
// wrote during the first, which takes long and does not hold them up.
func mend(f *os.File) error {
	end, err := intact(f, 0)
	if err != nil {
		return err
	}
	if err := lock(f); err != nil {
		return err
	}
	defer unlock(f)
	if end, err = intact(f, end); err != nil {
		return err
	}
	return f.Truncate(end)
}

// intact is where the last whole part of a file ends; before from all are.
func intact(f *os.File, from int64) (int64, error) {
	if _, err := f.Seek(from, io.SeekStart); err != nil {
		return 0, err
	}
	r := NewReader(f)
	for {
		switch _, err := r.Next(); {
		case errors.Is(err, io.EOF):
			return from + r.whole, nil
		case err != nil:
			return 0, err
		}
	}
}

// A shared file has parts of other processes too.
type shared struct{ *os.File }

// Write writes a part, or nothing of it: somebody else's may follow.
func (s shared) Write(part []byte) (int, error) {
	if err := lock(s.File); err != nil {
		return 0, err
	}
	defer unlock(s.File)
	n, err := s.File.Write(part)
	if err != nil && n > 0 {
		if end, bad := s.Seek(0, io.SeekCurrent); bad == nil {
			err = errors.Join(err, s.Truncate(end-int64(n)))
		}
	}
	return n, err
}

// NewWriter returns a Writer to out, which it closes.
func NewWriter(out io.WriteCloser, h Header) *Writer {
	e := encoder{b: append([]byte(nil), magic...)}
	e.message(partHeader, h.encode)
	w := &Writer{header: h, begun: e.b, part: e.b, parts: make(chan []byte, 1), done: make(chan struct{})}
	go w.write(out)
	return w
}

// Write appends an entry. It waits while the file is slower than the entries come.
// An error of a part before comes with a later entry, and nothing is written any more
// then. An entry that is too large to be read is an error of its own, which wraps
// redirect.ErrTooLarge; answers that make it so are left out.
func (w *Writer) Write(n *Entry) error {
	n = w.header.Masked.hide(n)
	if err := n.fits(); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch failed := w.failed.Load(); {
	case w.closed:
		return os.ErrClosed
	case failed != nil:
		return *failed
	}
	e := encoder{b: w.part}
	e.message(partEntry, n.encode)
	if size := len(e.b) - len(w.part); size > MaxMessage {
		return fmt.Errorf("flight: %w: an entry of %d bytes, at most %d are read", redirect.ErrTooLarge, size, MaxMessage)
	}
	if w.part = e.b; len(w.part) >= partSize {
		w.flush()
	}
	return nil
}

// flush hands the part over. The caller holds w.mu.
func (w *Writer) flush() {
	if len(w.part) > len(w.begun) {
		w.parts <- w.part
		w.part = w.begun[:len(w.begun):len(w.begun)]
	}
}

// write compresses parts and writes them.
func (w *Writer) write(out io.WriteCloser) {
	defer close(w.done)
	tick := time.NewTicker(partAge)
	defer tick.Stop()
	z, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed) // The level is one.
	var b bytes.Buffer
	for {
		select {
		case <-tick.C:
			if !w.mu.TryLock() { // Somebody writes, and may wait for us.
				continue
			}
			if len(w.parts) == 0 {
				w.flush()
			}
			w.mu.Unlock()
		case part, open := <-w.parts:
			if !open {
				w.fail(out.Close())
				return
			}
			if w.failed.Load() != nil { // There may be half a part, which only the end may be.
				continue
			}
			b.Reset()
			z.Reset(&b)
			_, _ = z.Write(part) // A buffer takes everything.
			_ = z.Close()
			if _, err := out.Write(b.Bytes()); err != nil {
				w.fail(err)
			}
		}
	}
}

func (w *Writer) fail(err error) {
	if err != nil {
		w.failed.CompareAndSwap(nil, &err)
	}
}

// Close writes what is left.
func (w *Writer) Close() error {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return os.ErrClosed
	}
	w.closed = true
	w.flush()
	close(w.parts)
	w.mu.Unlock()
	<-w.done
	if failed := w.failed.Load(); failed != nil {
		return *failed
	}
	return nil
}
