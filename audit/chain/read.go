package chain

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"consort.dev/consort/fault"
)

// Broken says where a chain is not as it was written.
type Broken struct {
	File     string `json:"file" doc:"The segment's file."`
	Line     int    `json:"line" doc:"From 1, which is the segment's own; each frame is one."`
	Sequence uint64 `json:"sequence,omitempty" doc:"The frame that is not as it was, or is not there."`
	Why      string `json:"why" doc:"What is wrong with it."`
}

// Error implements error.
func (b *Broken) Error() string {
	return fmt.Sprintf("%s:%d: record %d: %s", b.File, b.Line, b.Sequence, b.Why)
}

// Torn is a frame that was begun and not ended, as a crash leaves one. It was
// never promised to anybody.
type Torn struct {
	File     string `json:"file" doc:"The segment's file."`
	Line     int    `json:"line" doc:"Of the beginning, from 1."`
	Sequence uint64 `json:"sequence" doc:"What the frame would have been."`
	Bytes    int64  `json:"bytes" doc:"How much of it is there."`
	sum      Hash
}

// errTorn ends a segment that ends in the middle of a frame.
var errTorn = errors.New("the file ends within a frame")

// scanner reads the frames of one segment.
type scanner struct {
	f        *os.File
	r        *bufio.Reader
	head     head
	line     int // of the next frame
	sequence uint64
	hash     Hash      // of the last frame
	at       time.Time // of the last frame
	good     int64     // bytes up to the end of the last frame
}

// scan opens a segment. One whose first line is none is *Broken.
func scan(dir string, segment int) (*scanner, error) {
	f, err := os.Open(fileOf(dir, segment))
	if err != nil {
		return nil, fault.Unavailable.Errorf("read the chain: %w", err)
	}
	s := &scanner{f: f, r: bufio.NewReaderSize(f, 256<<10), line: 1}
	line, err := s.r.ReadString('\n')
	if err != nil && err != io.EOF {
		f.Close()
		return nil, fault.Unavailable.Errorf("read the chain: %w", err)
	}
	h, ok := parseHead(line)
	if !ok || h.segment != segment {
		f.Close()
		return nil, &Broken{File: f.Name(), Line: 1, Why: "this is not the first line of that segment"}
	}
	s.head, s.line, s.sequence, s.hash, s.good = h, 2, h.first, h.start(), int64(len(line))
	return s, nil
}

func (s *scanner) close() { s.f.Close() }

func (s *scanner) broken(format string, args ...any) *Broken {
	return &Broken{File: s.f.Name(), Line: s.line, Sequence: s.sequence, Why: fmt.Sprintf(format, args...)}
}

// frame returns the next frame: io.EOF after the last, errTorn when the file
// ends within it, *Broken when it is not as it was written.
func (s *scanner) frame() (Frame, error) {
	var f Frame
	fields, err := s.fields()
	if err != nil {
		return f, err
	}
	n, err1 := strconv.ParseUint(fields[0], 10, 64)
	at, err2 := strconv.ParseInt(fields[1], 10, 64)
	size, err3 := strconv.Atoi(fields[2])
	if errors.Join(err1, err2, err3) != nil || size < 0 || size > Largest {
		return f, s.broken("it has not the form of a record")
	}
	if n != s.sequence {
		return f, s.broken("record %d stands here: records were removed, added or moved", n)
	}
	data := make([]byte, size+1)
	if _, err := io.ReadFull(s.r, data); err != nil {
		return f, s.ending(err)
	}
	data, end := data[:size], data[size]
	text, got := next(s.hash, n, at, data)
	if got.String() != fields[3] || end != '\n' || text != strings.Join(fields[:3], " ") {
		return f, s.broken("its hash does not fit what it says: it was altered")
	}
	s.good += int64(len(text)) + int64(len(fields[3])) + int64(size) + 3
	s.hash, s.at = got, time.Unix(0, at).UTC()
	s.line, s.sequence = s.line+1, s.sequence+1
	return Frame{n, s.at, data}, nil
}

// fields reads the four fields before the data.
func (s *scanner) fields() ([4]string, error) {
	var out [4]string
	longest := [4]int{20, 20, 8, 2 * sha256.Size}
	for i := range out {
		var b strings.Builder
		for {
			c, err := s.r.ReadByte()
			if err == io.EOF && i == 0 && b.Len() == 0 {
				return out, io.EOF
			}
			if err != nil {
				return out, s.ending(err)
			}
			if c == ' ' {
				break
			}
			if b.Len() == longest[i] {
				return out, s.broken("it has not the form of a record")
			}
			b.WriteByte(c)
		}
		out[i] = b.String()
	}
	return out, nil
}

func (s *scanner) ending(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return errTorn
	}
	return fault.Unavailable.Errorf("read the chain: %w", err)
}

// rest returns what comes after the last good frame.
func (s *scanner) rest() (Torn, error) {
	t := Torn{File: s.f.Name(), Line: s.line, Sequence: s.sequence}
	if _, err := s.f.Seek(s.good, io.SeekStart); err != nil {
		return t, fault.Unavailable.Errorf("read the chain: %w", err)
	}
	d := sha256.New()
	n, err := io.Copy(d, s.f)
	if err != nil {
		return t, fault.Unavailable.Errorf("read the chain: %w", err)
	}
	t.Bytes = n
	if n > 0 {
		d.Sum(t.sum[:0])
	}
	return t, nil
}

// Read gives the frames after a sequence to visit, in order, until visit
// returns an error. A segment is read as far as it is whole; frames of later
// segments are given nevertheless, and then the error is the first *Broken. A
// frame that is only half there is none.
func Read(ctx context.Context, dir string, after uint64, visit func(Frame) error) error {
	ns, err := segments(dir)
	if err != nil {
		return err
	}
	var first error
	for i, n := range ns {
		if i+1 < len(ns) && startsBy(dir, ns[i+1], after) {
			continue // all of it comes before
		}
		err := readOne(ctx, dir, n, after, visit)
		var b *Broken
		switch {
		case err == nil || errors.Is(err, os.ErrNotExist): // it was retired meanwhile
		case !errors.As(err, &b):
			return err
		case first == nil:
			first = fault.Internal.Errorf("read the chain: %w", err)
		}
	}
	return first
}

// startsBy reports whether the segment's first frame is at most the one after.
func startsBy(dir string, segment int, after uint64) bool {
	s, err := scan(dir, segment)
	if err != nil {
		return false
	}
	defer s.close()
	return s.head.first <= after+1
}

func readOne(ctx context.Context, dir string, n int, after uint64, visit func(Frame) error) error {
	s, err := scan(dir, n)
	if err != nil {
		return err
	}
	defer s.close()
	for {
		f, err := s.frame()
		switch {
		case err == io.EOF || err == errTorn:
			return nil
		case err != nil:
			return err
		case f.Sequence <= after:
			continue
		}
		if err := visit(f); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// Retire removes the segments before the one given, the oldest first.
func Retire(dir string, before int) error {
	ns, err := segments(dir)
	for _, n := range ns {
		if n >= before || err != nil {
			break
		}
		err = os.Remove(filepath.Clean(fileOf(dir, n)))
	}
	if err != nil {
		return fault.Unavailable.Errorf("retire old segments: %w", err)
	}
	return nil
}
