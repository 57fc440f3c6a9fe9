package audit

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"consort.dev/consort/audit/chain"
	"consort.dev/consort/fault"
)

// Query says which records. Its zero value is all of them.
type Query struct {
	Since, Until  time.Time // from, and before
	Who, What, On string    // exactly, or with * at the end whatever begins so; On also one of a set
	After         uint64    // sequence
	Last          int       // only so many, the newest; all when 0
}

// matches reports whether the record is asked for.
func (q *Query) matches(r *Record) bool {
	switch {
	case r.Sequence <= q.After, !q.Since.IsZero() && r.Time.Before(q.Since), !q.Until.IsZero() && !r.Time.Before(q.Until):
		return false
	}
	return like(q.Who, r.Who) && like(q.What, r.What) && (like(q.On, r.On) || q.within(r))
}

// within reports whether the record is of a set that the object is in.
func (q *Query) within(r *Record) bool {
	for ref := range r.With {
		if strings.Contains(ref, "/") && like(q.On, ref) {
			return true
		}
	}
	return false
}

func like(want, is string) bool {
	begin, open := strings.CutSuffix(want, "*")
	return want == "" || want == is || open && strings.HasPrefix(is, begin)
}

// Read gives the records that match to visit, in order, until visit returns an
// error. Records that cannot be read are passed over, and then the error says
// where the first of them is.
func (l *Log) Read(ctx context.Context, q Query, visit func(Record) error) error {
	return Read(ctx, l.Dir, q, visit)
}

// Read is Log.Read of the files in the directory.
func Read(ctx context.Context, dir string, q Query, visit func(Record) error) error {
	var newest []Record // a ring when q.Last is set
	seen := 0
	err := chain.Read(ctx, dir, q.After, func(f chain.Frame) error {
		r := Record{Sequence: f.Sequence, Time: f.Time}
		if err := json.Unmarshal(f.Data, &r.Act); err != nil {
			return fault.Internal.Errorf("read the audit log: record %d: %w", f.Sequence, err)
		}
		switch {
		case !q.matches(&r):
		case q.Last == 0:
			return visit(r)
		case len(newest) < q.Last:
			newest = append(newest, r)
		default:
			newest[seen%q.Last] = r
		}
		if q.Last > 0 && q.matches(&r) {
			seen++
		}
		return nil
	})
	for i := range newest {
		at := i
		if seen > len(newest) {
			at = (seen + i) % len(newest)
		}
		if err := visit(newest[at]); err != nil {
			return err
		}
	}
	return err
}

// Follow is Read that goes on with every record that comes, until ctx or visit
// ends it.
func (l *Log) Follow(ctx context.Context, q Query, visit func(Record) error) error {
	for {
		l.mu.Lock()
		news, until := l.news, l.w.Head().Last
		l.mu.Unlock()
		err := l.Read(ctx, q, func(r Record) error {
			q.After = max(q.After, r.Sequence)
			return visit(r)
		})
		if err != nil {
			return err
		}
		// The next time all that comes is shown, and what did not match is not read again.
		q.After, q.Last = max(q.After, until), 0
		select {
		case <-news:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Verify checks the whole log against its seals and what this process wrote.
func (l *Log) Verify(ctx context.Context) (chain.Report, error) {
	l.files.RLock()
	defer l.files.RUnlock()
	known, err := l.known(ctx)
	if err != nil {
		return chain.Report{}, err
	}
	l.mu.Lock()
	head := l.w.Head()
	known = append(known, l.closed...)
	l.mu.Unlock()
	r, err := chain.Verify(ctx, l.Dir, append(known, head))
	// A record being written at this moment is not one that a crash left.
	if n := len(r.Torn); n > 0 && r.Torn[n-1].Sequence > head.Last {
		r.Torn = r.Torn[:n-1]
	}
	return r, err
}
