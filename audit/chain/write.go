package chain

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"consort.dev/consort/fault"
	"consort.dev/consort/internal/atomicfile"
)

// Options are what a writer is made of.
type Options struct {
	Now     func() time.Time // the clock
	Random  io.Reader        // names a new chain
	Largest int64            // bytes after which a segment is Due to end; 64 MiB when 0
	Oldest  time.Duration    // age after which it is; a day when 0
	Seals   []Seal           // of the chain, kept elsewhere; none when it is new
}

// Writer appends to a chain. It is for one goroutine at a time, and a directory
// is for one writer.
type Writer struct {
	o      Options
	dir    string
	f      *os.File
	head   head
	began  time.Time
	size   int64
	last   Seal  // how far the segment has come
	broken error // why nothing more can be written
	left   Torn  // what was found half-written
}

// Open goes on with the chain in the directory, or begins one. What a crash
// left half-written stays where it is, is named in the next segment's first
// line and is reported by Torn. What is damaged or missing stays so for Verify
// to find: the chain goes on behind it.
func Open(dir string, o Options) (*Writer, error) {
	if o.Largest == 0 {
		o.Largest = 64 << 20
	}
	if o.Oldest == 0 {
		o.Oldest = 24 * time.Hour
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fault.Unavailable.Errorf("open the chain: %w", err)
	}
	w := &Writer{o: o, dir: dir}
	h, err := w.after()
	if err == nil {
		err = w.begin(h)
	}
	if err != nil {
		return nil, err
	}
	return w, nil
}

// after returns the head of the segment to begin: after all that is there, and
// after all that is sealed.
func (w *Writer) after() (head, error) {
	h := head{segment: 1, first: 1}
	ns, err := segments(w.dir)
	if err != nil {
		return h, err
	}
	if len(ns) > 0 {
		if h, err = w.behind(ns[len(ns)-1]); err != nil {
			return h, err
		}
	}
	for _, s := range w.o.Seals {
		if h.chain == "" {
			h.chain = s.Chain
		}
		h.segment = max(h.segment, s.Segment+1)
		if s.Last >= h.first {
			h.first, h.prev = s.Last+1, s.Hash
		}
	}
	if h.chain != "" {
		return h, nil
	}
	var id [16]byte
	if _, err := io.ReadFull(w.o.Random, id[:]); err != nil {
		return h, fault.Internal.Errorf("name a chain: %w", err)
	}
	h.chain = hex.EncodeToString(id[:])
	return h, nil
}

// behind returns the head that follows the segment, read as far as it is whole.
func (w *Writer) behind(n int) (head, error) {
	s, err := scan(w.dir, n)
	var b *Broken
	if errors.As(err, &b) { // nothing in it can be believed
		return head{segment: n + 1, first: 1}, nil
	}
	if err != nil {
		return head{}, err
	}
	defer s.close()
	for err == nil {
		_, err = s.frame()
	}
	if err != io.EOF && err != errTorn && !errors.As(err, &b) {
		return head{}, err
	}
	if w.left, err = s.rest(); err != nil {
		return head{}, err
	}
	return head{chain: s.head.chain, segment: n + 1, first: s.sequence, prev: s.hash, torn: w.left.Bytes, tornSum: w.left.sum}, nil
}

// begin makes the segment's file, which is there with its first line or not at
// all, and opens it.
func (w *Writer) begin(h head) error {
	file, line := fileOf(w.dir, h.segment), h.line()
	if err := atomicfile.Write(file, []byte(line), 0o600); err != nil {
		return room(err, "begin a segment of the chain")
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return fault.Unavailable.Errorf("begin a segment of the chain: %w", err)
	}
	now := w.o.Now()
	w.f, w.head, w.began, w.size = f, h, now, int64(len(line))
	w.last = Seal{Chain: h.chain, Segment: h.segment, Last: h.first - 1, Hash: h.start(), Time: now.UTC()}
	return nil
}

// Torn returns what Open found half-written, if anything.
func (w *Writer) Torn() (Torn, bool) { return w.left, w.left.Bytes > 0 }

// Append writes a frame for each piece of data and returns the sequence of the
// first. All are written or none. They are durable after the next Sync. Without
// room the error is fault.NoCapacity, and it may be tried again.
func (w *Writer) Append(data ...[]byte) (first uint64, err error) {
	if w.broken != nil {
		return 0, w.broken
	}
	seal, now := w.last, w.o.Now().UTC()
	var buf []byte
	for _, d := range data {
		if len(d) > Largest {
			return 0, fault.Invalid.Errorf("append to the chain: a frame of %d bytes; at most %d", len(d), Largest)
		}
		var fields string
		fields, seal.Hash = next(seal.Hash, seal.Last+1, now.UnixNano(), d)
		buf = fmt.Appendf(buf, "%s %s ", fields, seal.Hash)
		buf = append(append(buf, d...), '\n')
		seal.Last++
		seal.Time = now
	}
	if _, err := w.f.Write(buf); err != nil {
		if undo := w.f.Truncate(w.size); undo != nil {
			w.broken = fault.Stuck.Errorf("append to the chain: what was written in part cannot be taken back: %w; start again", errors.Join(err, undo))
			return 0, w.broken
		}
		return 0, room(err, "append to the chain")
	}
	first = w.last.Last + 1
	w.last, w.size = seal, w.size+int64(len(buf))
	return first, nil
}

// room gives an error of writing its kind.
func room(err error, what string) error {
	if full(err) {
		return fault.NoCapacity.Errorf("%s: %w", what, err)
	}
	return fault.Unavailable.Errorf("%s: %w", what, err)
}

// Sync returns once everything appended is on disk. After an error nobody knows
// what is, so nothing more can be written: open the chain again.
func (w *Writer) Sync() error {
	if w.broken != nil {
		return w.broken
	}
	if err := w.f.Sync(); err != nil {
		w.broken = fault.Stuck.Errorf("write the chain to disk: %w; start again", err)
	}
	return w.broken
}

// Head says how far the chain has come. It is a seal once Sync has returned.
func (w *Writer) Head() Seal { return w.last }

// Due reports whether the segment is large or old enough to end.
func (w *Writer) Due() bool {
	return w.last.Last >= w.head.first && (w.size >= w.o.Largest || w.o.Now().Sub(w.began) >= w.o.Oldest)
}

// Rotate ends the segment, begins the next one and returns the seal of the one
// that ended. When it fails the chain goes on in the old one.
func (w *Writer) Rotate() (Seal, error) {
	if err := w.Sync(); err != nil {
		return Seal{}, err
	}
	old, done := w.f, w.last
	err := w.begin(head{chain: w.head.chain, segment: w.head.segment + 1, first: done.Last + 1, prev: done.Hash})
	if err != nil {
		return Seal{}, err
	}
	old.Close() // nothing of it is unwritten
	return done, nil
}

// Close writes everything to disk and ends the writer.
func (w *Writer) Close() error {
	err := w.Sync()
	if w.broken == nil {
		w.broken = fault.Unavailable.Errorf("the chain is closed")
	}
	return errors.Join(err, w.f.Close())
}
