package audit

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"consort.dev/consort/audit/chain"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/store"
)

// Options are what a log is made of.
type Options struct {
	Dir    string   // of its files
	KV     store.KV // keeps the seals, away from the files
	Now    func() time.Time
	Random io.Reader
	Log    *slog.Logger

	// Optional lets acts be done that cannot be written down. The log then says
	// how many those were as soon as it can.
	Optional bool
	Keep     time.Duration // how long segments are kept; for ever when 0
	Segment  int64         // bytes of a segment; chain's own when 0
	Reserve  int64         // bytes of the disk that beginnings leave free for endings; 16 MiB when 0, none below
	Every    time.Duration // between seals of what is new; a second when 0
}

// Log is a Recorder that keeps records in a chain of segments. Many records
// that wait at once go to disk together. It is safe for use by many goroutines.
type Log struct {
	Options
	queue chan *entry
	stop  chan struct{} // ends sealing and retiring, which record too
	quit  chan struct{} // ends writing
	ended chan struct{} // nothing is written any more
	tends sync.WaitGroup

	mu     sync.Mutex
	w      *chain.Writer
	closed []chain.Seal  // of segments that ended since the last seal
	sealed uint64        // the last record that a seal covers
	news   chan struct{} // closed when there is more to read
	missed int           // acts done and not written down

	files sync.RWMutex // held to remove some
}

// entry is a record on its way to disk.
type entry struct {
	data     []byte
	begins   bool
	sequence uint64
	err      error
	done     chan struct{}
}

const (
	together = 1024            // records that go to disk at once, at most
	sealTime = 5 * time.Second // to write a seal down
	seals    = "/consort/audit/seals/"
)

// Open goes on with the log in the directory, or begins one. The first record
// says that it was opened, and what the last crash left half-written. Close
// ends it.
func Open(ctx context.Context, o Options) (*Log, error) {
	if o.Reserve == 0 {
		o.Reserve = 16 << 20
	}
	if o.Every == 0 {
		o.Every = time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	l := &Log{Options: o, queue: make(chan *entry, together), stop: make(chan struct{}), quit: make(chan struct{}), ended: make(chan struct{}), news: make(chan struct{})}
	known, err := l.known(ctx)
	if err != nil {
		return nil, err
	}
	l.w, err = chain.Open(o.Dir, chain.Options{Now: o.Now, Random: o.Random, Largest: o.Segment, Seals: known})
	if err != nil {
		return nil, err
	}
	go l.write()
	l.tends.Go(l.tend)
	opened := Act{What: "audit.open", Outcome: Done, With: map[string]string{}}
	if t, ok := l.w.Torn(); ok {
		opened.With = map[string]string{"torn": strconv.FormatInt(t.Bytes, 10), "file": filepath.Base(t.File), "record": strconv.FormatUint(t.Sequence, 10)}
		o.Log.Warn("the audit log ends within a record, as a crash leaves it; no record that was acknowledged is missing by it", "file", t.File, "line", t.Line)
	}
	if _, err := l.Record(ctx, opened); err != nil {
		l.Close()
		return nil, err
	}
	return l, l.Seal(ctx)
}

// Close seals the log and ends it. What is still being recorded comes before.
func (l *Log) Close() error {
	close(l.stop)
	l.tends.Wait()
	close(l.quit)
	<-l.ended
	ctx, cancel := context.WithTimeout(context.Background(), sealTime)
	defer cancel()
	err := l.Seal(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	if ended := l.w.Close(); ended != nil {
		err = ended
	}
	return err
}

// Record implements Recorder. Without room on the disk an act that begins is
// fault.NoCapacity, unless the log is optional.
func (l *Log) Record(ctx context.Context, a Act) (uint64, error) {
	data, err := json.Marshal(a.trimmed())
	if err != nil {
		return 0, fault.Internal.Errorf("write the audit log: %w", err)
	}
	e := &entry{data: data, begins: a.Outcome == Begun, done: make(chan struct{})}
	if err := l.submit(ctx, e); err != nil {
		return 0, err
	}
	if e.err == nil {
		return e.sequence, nil
	}
	l.Log.Error("an act is not in the audit log", "act", string(data), "error", e.err)
	if l.Optional {
		return 0, nil
	}
	if e.begins {
		return 0, fault.KindOf(e.err).Errorf("nothing was done, since it could not be written into the audit log: %w", e.err)
	}
	return 0, e.err
}

// submit returns once the entry was written or could not be.
func (l *Log) submit(ctx context.Context, e *entry) error {
	select {
	case l.queue <- e:
	case <-l.ended:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-e.done:
		return nil
	case <-ctx.Done():
		return fault.OutcomeUnknown.Errorf("write the audit log: %w", ctx.Err())
	case <-l.ended:
	}
	select {
	case <-e.done: // it was the last
		return nil
	default:
		return fault.Unavailable.Errorf("write the audit log: the plane is ending")
	}
}

// write takes entries to disk, as many as wait at once.
func (l *Log) write() {
	defer close(l.ended)
	for {
		var batch []*entry
		select {
		case e := <-l.queue:
			batch = append(batch, e)
		case <-l.quit:
			select { // what came before the end is written
			case e := <-l.queue:
				batch = append(batch, e)
			default:
				return
			}
		}
		for len(batch) < together && len(l.queue) > 0 {
			batch = append(batch, <-l.queue)
		}
		l.commit(batch)
	}
}

// commit writes the batch and waits for the disk once for all of it.
func (l *Log) commit(batch []*entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.turn()
	room := l.room()
	var write []*entry
	var data [][]byte
	missed := l.missed
	if missed > 0 {
		data = append(data, gap(missed))
	}
	before := uint64(len(data))
	for _, e := range batch {
		if e.begins && room != nil {
			l.fail(e, room)
			continue
		}
		write, data = append(write, e), append(data, e.data)
	}
	if len(write) == 0 {
		return
	}
	first, err := l.w.Append(data...)
	if err == nil {
		err = l.w.Sync()
	}
	for i, e := range write {
		if err != nil {
			l.fail(e, err)
			continue
		}
		e.sequence = first + before + uint64(i)
		close(e.done)
	}
	if err == nil {
		l.missed -= missed
		close(l.news)
		l.news = make(chan struct{})
	}
}

// gap is the record of acts that are missing from the log.
func gap(missed int) []byte {
	data, err := json.Marshal(Act{What: "audit.gap", Outcome: Done, With: map[string]string{"missed": strconv.Itoa(missed)}})
	if err != nil {
		panic(err) // strings are always JSON
	}
	return data
}

// fail answers that the entry is not written.
func (l *Log) fail(e *entry, err error) {
	if l.Optional || !e.begins {
		l.missed++
	}
	e.err = err
	close(e.done)
}

// room returns why an act should not begin: too little of the disk is free to
// write down how it ends.
func (l *Log) room() error {
	var fs syscall.Statfs_t
	if l.Reserve < 0 || syscall.Statfs(l.Dir, &fs) != nil {
		return nil
	}
	free := int64(fs.Bavail) * int64(fs.Bsize)
	if free >= l.Reserve {
		return nil
	}
	return fault.NoCapacity.Errorf("the disk of %s has %d MiB free, and the audit log needs %d; free some", l.Dir, free>>20, l.Reserve>>20)
}

// turn begins the next segment when it is time. Without room the old one goes on.
func (l *Log) turn() {
	if !l.w.Due() {
		return
	}
	done, err := l.w.Rotate()
	if err != nil {
		l.Log.Warn("the audit log goes on in a segment that should have ended", "error", err)
		return
	}
	l.closed = append(l.closed, done)
}

// tend seals what is new and retires what is old until the log is closed.
func (l *Log) tend() {
	tick := time.NewTicker(l.Every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-l.stop:
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), sealTime)
		if err := l.Seal(ctx); err != nil {
			l.Log.Warn("the audit log is not sealed; its newest records could be cut off unseen until it is", "error", err)
		} else if err := l.retire(ctx); err != nil {
			l.Log.Warn("retire old segments of the audit log", "error", err)
		}
		cancel()
	}
}

// Seal writes into the store how far the log has come.
func (l *Log) Seal(ctx context.Context) error {
	l.mu.Lock()
	now := append(l.closed, l.w.Head())
	l.closed = nil
	fresh := now[len(now)-1].Last != l.sealed || len(now) > 1
	l.mu.Unlock()
	if !fresh {
		return nil
	}
	var t store.Txn
	for _, s := range now {
		value, err := json.Marshal(s)
		if err != nil {
			return fault.Internal.Errorf("seal the audit log: %w", err)
		}
		t.Then = append(t.Then, store.Write{Key: sealKey(s.Segment), Value: value})
	}
	_, err := l.KV.Commit(ctx, t)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.closed = append(now[:len(now)-1:len(now)-1], l.closed...)
		return fault.KindOf(err).Errorf("seal the audit log: %w", err)
	}
	l.sealed = now[len(now)-1].Last
	return nil
}

func sealKey(segment int) string { return fmt.Sprintf("%s%08d", seals, segment) }

// Seals seals the log and returns how far every segment has come. Kept by
// somebody else as well, they show when plane and store were both changed.
func (l *Log) Seals(ctx context.Context) ([]chain.Seal, error) {
	if err := l.Seal(ctx); err != nil {
		return nil, err
	}
	return l.known(ctx)
}

// known returns the seals that the store has.
func (l *Log) known(ctx context.Context) ([]chain.Seal, error) {
	page, err := l.KV.List(ctx, seals, "", 0)
	if err != nil {
		return nil, fault.KindOf(err).Errorf("read the seals of the audit log: %w", err)
	}
	list := []chain.Seal{}
	for _, e := range page.Entries {
		var s chain.Seal
		if err := json.Unmarshal(e.Value, &s); err != nil {
			return nil, fault.Internal.Errorf("read the seals of the audit log: %s: %w", e.Key, err)
		}
		list = append(list, s)
	}
	return list, nil
}

// retire removes segments whose last record is older than what is kept. The log
// says so, with the hash of the last record that went.
func (l *Log) retire(ctx context.Context) error {
	if l.Keep == 0 {
		return nil
	}
	l.files.Lock()
	defer l.files.Unlock()
	list, err := l.known(ctx)
	if err != nil || len(list) < 2 {
		return err
	}
	var old []chain.Seal
	for _, s := range list[:len(list)-1] { // the last one is being written
		if l.Now().Sub(s.Time) < l.Keep {
			break
		}
		old = append(old, s)
	}
	if len(old) == 0 {
		return nil
	}
	last := old[len(old)-1]
	return Do(ctx, l, Act{What: "audit.retire", With: map[string]string{
		"last": strconv.FormatUint(last.Last, 10), "hash": last.Hash.String(),
	}}, func(map[string]string) error {
		var t store.Txn
		for _, s := range old {
			t.Then = append(t.Then, store.Write{Key: sealKey(s.Segment), Delete: true})
		}
		if _, err := l.KV.Commit(ctx, t); err != nil {
			return err
		}
		return chain.Retire(l.Dir, last.Segment+1)
	})
}
