package chain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Report is what a check of a chain found.
type Report struct {
	Segments int     `json:"segments" doc:"Files read."`
	Frames   uint64  `json:"records" doc:"Records that are as they were written."`
	First    uint64  `json:"first,omitempty" doc:"The oldest of them."`
	Last     uint64  `json:"last,omitempty" doc:"The newest of them."`
	Sealed   uint64  `json:"sealed,omitempty" doc:"The newest that a seal covers: the end of the log cannot have been cut off before it unseen."`
	Torn     []Torn  `json:"torn,omitempty" doc:"What crashes left half-written; it was never acknowledged."`
	Broken   *Broken `json:"broken,omitempty" doc:"The first place that is not as it was written. Nothing after it was checked."`
}

// verifier goes through the segments of a chain.
type verifier struct {
	dir   string
	seals map[int]Seal
	out   Report
	id    string // of the chain
	last  Hash   // of the segment before
	next  uint64 // sequence to come
	torn  Torn   // of the segment before
}

// Verify checks every frame of the chain and compares it with what seals say,
// which were kept elsewhere: each must find its segment and fit it. The error is
// of reading; what is wrong with the chain is in the report.
func Verify(ctx context.Context, dir string, seals []Seal) (Report, error) {
	v := &verifier{dir: dir, seals: map[int]Seal{}}
	ns, err := segments(dir)
	if err != nil {
		return v.out, err
	}
	lowest, highest := 0, 0
	if len(ns) > 0 {
		lowest, highest = ns[0], ns[len(ns)-1]
	}
	for _, s := range seals {
		if known, ok := v.seals[s.Segment]; !ok || known.Last < s.Last {
			v.seals[s.Segment] = s
		}
		if lowest == 0 || s.Segment < lowest {
			lowest = s.Segment
		}
		highest = max(highest, s.Segment)
	}
	for n := lowest; n <= highest && n > 0; n++ {
		err := v.segment(ctx, n, n == lowest)
		if errors.As(err, &v.out.Broken) {
			break
		}
		if err != nil {
			return v.out, err
		}
	}
	return v.out, nil
}

// segment checks one segment against the one before it and its seal.
func (v *verifier) segment(ctx context.Context, n int, first bool) error {
	s, err := scan(v.dir, n)
	if errors.Is(err, os.ErrNotExist) {
		return &Broken{File: filepath.Clean(fileOf(v.dir, n)), Line: 1, Sequence: v.next, Why: "the file is not there"}
	}
	if err != nil {
		return err
	}
	defer s.close()
	seal, sealed := v.seals[n]
	if err := v.joins(s, seal, sealed, first); err != nil {
		return err
	}
	v.out.Segments++
	if sealed && seal.Last+1 == s.head.first && seal.Hash != s.hash {
		return &Broken{File: s.f.Name(), Line: 1, Sequence: s.head.first, Why: "this is not the segment that was sealed: it was replaced"}
	}
	if err := v.frames(ctx, s, seal, sealed); err != nil {
		return err
	}
	if sealed && seal.Last >= s.sequence {
		return s.broken("it is missing: the seal of this segment covers records up to %d, so its end was cut off", seal.Last)
	}
	if sealed {
		v.out.Sealed = max(v.out.Sealed, seal.Last)
	}
	v.id, v.last, v.next = s.head.chain, s.hash, s.sequence
	v.torn, err = s.rest()
	if v.torn.Bytes > 0 {
		v.out.Torn = append(v.out.Torn, v.torn)
	}
	return err
}

// joins checks that a segment follows the one before.
func (v *verifier) joins(s *scanner, seal Seal, sealed, first bool) error {
	why := ""
	switch h := s.head; {
	case sealed && h.chain != seal.Chain:
		why = "this is a segment of another chain: it was replaced"
	case first && h.segment != 1: // what came before was retired
	case first && h != head{chain: h.chain, segment: 1, first: 1}:
		why = "this is not where a chain begins"
	case first:
	case h.chain != v.id:
		why = "this is a segment of another chain: it was replaced"
	case h.first != v.next:
		return &Broken{File: v.torn.File, Line: v.torn.Line, Sequence: v.next, Why: "it is missing: the segment after this one goes on later, so its end was cut off"}
	case h.prev != v.last:
		why = "it does not follow the segment before: one of the two was replaced"
	case v.torn.Bytes == 0 && (h.torn != 0 || h.tornSum != Hash{}):
		why = fmt.Sprintf("it says that %d bytes of a record half-written by a crash stand before it, and they do not", h.torn)
	case h.torn != v.torn.Bytes || h.tornSum != v.torn.sum:
		return &Broken{File: v.torn.File, Line: v.torn.Line, Sequence: v.next, Why: "what comes after the last record is not what stood there when the chain went on"}
	}
	if why == "" {
		return nil
	}
	return &Broken{File: s.f.Name(), Line: 1, Sequence: s.head.first, Why: why}
}

// frames checks every frame of the segment.
func (v *verifier) frames(ctx context.Context, s *scanner, seal Seal, sealed bool) error {
	for {
		f, err := s.frame()
		switch {
		case err == io.EOF || err == errTorn:
			return nil
		case err != nil:
			return err
		case sealed && f.Sequence == seal.Last && s.hash != seal.Hash:
			return &Broken{File: s.f.Name(), Line: s.line - 1, Sequence: f.Sequence, Why: "it is not what was sealed: this part was written anew"}
		}
		if v.out.First == 0 {
			v.out.First = f.Sequence
		}
		v.out.Last = f.Sequence
		v.out.Frames++
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}
