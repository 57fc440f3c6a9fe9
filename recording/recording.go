// Package recording keeps what sessions showed, so that it can be played again
// and nobody alters it or cuts its end off unseen.
//
// A recording is a chain of frames (audit/chain). The first holds its Info as
// JSON. Each that follows holds pieces: one byte that says what the piece is,
// four with the milliseconds since the beginning, four with its length, and the
// piece. Seals are kept in the store, away from the files.
package recording

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"consort.dev/consort/audit/chain"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/store"
)

// Info says what a recording is of.
type Info struct {
	ID      string    `json:"id"`
	Project string    `json:"project"`
	Session string    `json:"session"`
	Desktop string    `json:"desktop"`
	Person  string    `json:"person"`
	Context string    `json:"context" doc:"Whose rule had it recorded."`
	Speaks  string    `json:"protocol" doc:"What the viewer was spoken to in, which plays it."`
	Began   time.Time `json:"began"`
	Ended   time.Time `json:"ended,omitzero" doc:"Empty while it goes on, and of one that a crash ended."`
	Bytes   int64     `json:"bytes" doc:"What was shown, as far as it is sealed."`
}

// Piece is a part of a recording.
type Piece struct {
	Kind Kind
	At   time.Duration // since the beginning
	Data []byte
}

// Kind is what a piece is.
type Kind byte

// The kinds of pieces.
const (
	Shown Kind = 's' // bytes that were sent to the viewer
	Event Kind = 'e' // what happened, in a word
)

// Options are what a Keeper is made of.
type Options struct {
	Dir    string   // of the recordings' folders
	KV     store.KV // keeps the seals
	Now    func() time.Time
	Random io.Reader // names recordings
	Log    *slog.Logger
	Every  time.Duration // between seals; 5 s when 0, so that less than 10 s are ever unsealed
}

// Keeper keeps recordings. It is safe for concurrent use.
type Keeper struct{ Options }

// New returns a keeper.
func New(o Options) *Keeper {
	if o.Every == 0 {
		o.Every = 5 * time.Second
	}
	return &Keeper{o}
}

// kept is what the store has of a recording.
type kept struct {
	Info  Info         `json:"info"`
	Seals []chain.Seal `json:"seals"`
}

const keys = "/consort/recordings/"

var idRule = regexp.MustCompile(`^[0-9a-f]{32}$`)

func (k *Keeper) dir(id string) string { return filepath.Join(k.Dir, id) }

// Begin begins a recording, which is on disk and sealed when it returns. Failed
// is called once when it cannot go on; it may be nil.
func (k *Keeper) Begin(ctx context.Context, of Info, failed func(error)) (*Tape, error) {
	var b [16]byte
	if _, err := io.ReadFull(k.Random, b[:]); err != nil {
		return nil, fault.Internal.Errorf("name a recording: %w", err)
	}
	of.ID, of.Began = hex.EncodeToString(b[:]), k.Now().UTC()
	w, err := chain.Open(k.dir(of.ID), chain.Options{Now: k.Now, Random: k.Random})
	if err != nil {
		return nil, fault.KindOf(err).Errorf("begin a recording: %w", err)
	}
	t := &Tape{keeper: k, w: w, failed: failed, kept: kept{Info: of}, stop: make(chan struct{}), ended: make(chan struct{})}
	head, err := json.Marshal(of)
	if err == nil {
		_, err = w.Append(head)
	}
	if err == nil {
		err = t.seal(ctx)
	}
	if err != nil {
		_ = w.Close() // nothing of it counts
		_ = os.RemoveAll(k.dir(of.ID))
		return nil, fault.KindOf(err).Errorf("begin a recording: %w", err)
	}
	t.sealed = of.Began
	go t.run()
	return t, nil
}

// List returns what is kept, the newest first.
func (k *Keeper) List(ctx context.Context) ([]Info, error) {
	list := []Info{}
	for after := ""; ; {
		page, err := k.KV.List(ctx, keys, after, 500)
		if err != nil {
			return nil, fault.KindOf(err).Errorf("list recordings: %w", err)
		}
		for _, e := range page.Entries {
			var r kept
			if err := json.Unmarshal(e.Value, &r); err != nil {
				return nil, fault.Internal.Errorf("read recording %s: %w", e.Key, err)
			}
			list, after = append(list, r.Info), e.Key
		}
		if !page.More {
			break
		}
	}
	slices.SortFunc(list, func(a, b Info) int { return b.Began.Compare(a.Began) })
	return list, nil
}

func (k *Keeper) find(ctx context.Context, id string) (kept, error) {
	var r kept
	if !idRule.MatchString(id) {
		return r, fault.NotFound.Errorf("there is no recording %q", id)
	}
	e, err := k.KV.Get(ctx, keys+id)
	if err != nil {
		return r, fault.KindOf(err).Errorf("find recording %s: %w", id, err)
	}
	if err := json.Unmarshal(e.Value, &r); err != nil {
		return r, fault.Internal.Errorf("read recording %s: %w", id, err)
	}
	return r, nil
}

// Verify checks that a recording is as it was written, as far as it was sealed.
func (k *Keeper) Verify(ctx context.Context, id string) (chain.Report, error) {
	r, err := k.find(ctx, id)
	if err != nil {
		return chain.Report{}, err
	}
	return chain.Verify(ctx, k.dir(id), r.Seals)
}

// Play gives every piece of a recording to visit. One that is not as it was
// written is fault.Conflict, and nothing of it is played.
func (k *Keeper) Play(ctx context.Context, id string, visit func(Piece) error) error {
	report, err := k.Verify(ctx, id)
	if err != nil {
		return err
	}
	if report.Broken != nil {
		return fault.Conflict.Errorf("recording %s is not as it was written: %w", id, report.Broken)
	}
	var pieces joiner
	return chain.Read(ctx, k.dir(id), 1, func(f chain.Frame) error { return pieces.add(f.Data, visit) })
}
