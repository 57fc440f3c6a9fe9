package recording

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"sync"
	"time"

	"consort.dev/consort/audit/chain"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/store"
)

const (
	writeEvery = 500 * time.Millisecond // what is shown is in the file after so long
	most       = 1 << 20                // bytes that wait for that, before whoever shows more waits too
	sealTime   = 5 * time.Second        // to write a seal down
	head       = 9                      // bytes before a piece
)

// Tape is a recording that goes on. It is safe for concurrent use.
type Tape struct {
	keeper *Keeper
	failed func(error)
	stop   chan struct{}
	ended  chan struct{}
	sealed time.Time // used by run alone

	mu      sync.Mutex
	pending []byte
	broken  error // why it cannot go on

	files sync.Mutex // held before mu
	w     *chain.Writer
	kept  kept
}

// ID returns the recording's name.
func (t *Tape) ID() string { return t.kept.Info.ID }

// Add puts a piece on the tape. An error says that it cannot go on.
func (t *Tape) Add(kind Kind, data []byte) error {
	t.mu.Lock()
	if t.broken != nil {
		defer t.mu.Unlock()
		return t.broken
	}
	at := t.keeper.Now().Sub(t.kept.Info.Began)
	t.pending = append(t.pending, byte(kind))
	t.pending = binary.BigEndian.AppendUint32(t.pending, uint32(max(0, at.Milliseconds())))
	t.pending = binary.BigEndian.AppendUint32(t.pending, uint32(len(data)))
	t.pending = append(t.pending, data...)
	full := len(t.pending) >= most
	t.mu.Unlock()
	if full {
		return t.write()
	}
	return nil
}

// write brings what waits into the file.
func (t *Tape) write() error {
	t.files.Lock()
	defer t.files.Unlock()
	t.mu.Lock()
	data := t.pending
	t.pending = nil
	t.mu.Unlock()
	var err error
	for len(data) > 0 && err == nil {
		n := min(len(data), chain.Largest/2)
		_, err = t.w.Append(data[:n:n])
		t.kept.Info.Bytes += int64(n)
		data = data[n:]
	}
	return t.fail(err)
}

// fail notes an error and tells of the first.
func (t *Tape) fail(err error) error {
	if err == nil {
		return nil
	}
	t.mu.Lock()
	first := t.broken == nil
	if first {
		t.broken = fault.KindOf(err).Errorf("go on with recording %s: %w", t.kept.Info.ID, err)
	}
	err = t.broken
	t.mu.Unlock()
	if first && t.failed != nil {
		t.failed(err)
	}
	return err
}

// seal brings the file to disk and says in the store how far it has come.
func (t *Tape) seal(ctx context.Context) error {
	t.files.Lock()
	defer t.files.Unlock()
	if err := t.w.Sync(); err != nil {
		return err
	}
	row := t.kept
	if t.w.Due() {
		ended, err := t.w.Rotate()
		if err != nil {
			return err
		}
		t.kept.Seals = append(t.kept.Seals, ended)
		row = t.kept
	}
	row.Seals = append(row.Seals[:len(row.Seals):len(row.Seals)], t.w.Head())
	value, err := json.Marshal(row)
	if err != nil {
		return fault.Internal.Errorf("seal a recording: %w", err)
	}
	_, err = t.keeper.KV.Commit(ctx, store.Txn{Then: []store.Write{{Key: keys + row.Info.ID, Value: value}}})
	return err
}

// run writes and seals until the tape is closed.
func (t *Tape) run() {
	defer close(t.ended)
	writes, seals := time.NewTicker(writeEvery), time.NewTicker(t.keeper.Every)
	defer writes.Stop()
	defer seals.Stop()
	for {
		select {
		case <-t.stop:
			return
		case <-writes.C:
			_ = t.write() // it tells of an error itself
		case <-seals.C:
			t.sealInTime()
		}
	}
}

// unsealed is how long a recording may go on without a seal.
const unsealed = 10 * time.Second

// sealInTime seals. A store that is away for a moment does not end the recording.
func (t *Tape) sealInTime() {
	err := t.sealSoon()
	now := t.keeper.Now()
	if err == nil {
		t.sealed = now
		return
	}
	if now.Sub(t.sealed) >= unsealed {
		_ = t.fail(err) // it tells of the error itself
	}
}

func (t *Tape) sealSoon() error {
	ctx, cancel := context.WithTimeout(context.Background(), sealTime)
	defer cancel()
	return t.seal(ctx)
}

// Close ends the recording: all of it is on disk and sealed.
func (t *Tape) Close() error {
	close(t.stop)
	<-t.ended
	err := t.write()
	t.files.Lock()
	t.kept.Info.Ended = t.keeper.Now().UTC()
	t.files.Unlock()
	if sealed := t.sealSoon(); err == nil {
		err = sealed
	}
	if closed := t.w.Close(); err == nil {
		err = closed
	}
	return err
}

// joiner puts pieces together that a frame's end has cut.
type joiner struct{ rest []byte }

func (j *joiner) add(data []byte, visit func(Piece) error) error {
	j.rest = append(j.rest, data...)
	for len(j.rest) >= head {
		n := int(binary.BigEndian.Uint32(j.rest[5:]))
		if len(j.rest)-head < n {
			return nil
		}
		p := Piece{
			Kind: Kind(j.rest[0]), At: time.Duration(binary.BigEndian.Uint32(j.rest[1:])) * time.Millisecond,
			Data: j.rest[head : head+n : head+n],
		}
		j.rest = j.rest[head+n:]
		if err := visit(p); err != nil {
			return err
		}
	}
	return nil
}
