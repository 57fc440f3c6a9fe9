package gateway

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/internal/rfb"
	"consort.dev/consort/plane/store"
	"consort.dev/consort/recording"
)

// replay is a connection on which a recording is heard, whatever is said.
type replay struct{ *bytes.Reader }

func (replay) Write(b []byte) (int, error) { return len(b), nil }
func (replay) Close() error                { return nil }

func TestTheContextSaysWhatIsRecorded(t *testing.T) {
	for _, c := range []struct {
		rule  estate.Recording
		asked bool
		want  bool
	}{
		{"", false, false}, {"", true, false}, {estate.RecordNever, true, false},
		{estate.RecordAllowed, false, false}, {estate.RecordAllowed, true, true}, {estate.RecordRequired, false, true},
	} {
		w := newWorld(t)
		w.Recordings = recording.New(recording.Options{
			Dir: t.TempDir(), KV: w.store.KV(), Now: time.Now, Random: rand.Reader, Log: slog.New(slog.DiscardHandler),
		})
		w.rule(t, func(x *estate.ContextSpec) { x.Recording = c.rule })
		s := w.session(t, "one")
		_, err := store.Modify(t.Context(), w.store, "main", "one", func(s *estate.Session) error { s.Spec.Record = c.asked; return nil })
		if err != nil {
			t.Fatal(err)
		}
		conn, _, err := w.dial(w.ticket(t, s), nil)
		if err != nil {
			t.Fatal(err)
		}
		v, err := look(conn, rfb.Proof{})
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		eventually(t, "the viewer has left", func() bool { return w.Opened() == 0 })
		list, err := w.Recordings.List(t.Context())
		if err != nil || (len(list) > 0) != c.want {
			t.Fatalf("rule %q, asked for %v: %d recordings, %v; want one: %v", c.rule, c.asked, len(list), err, c.want)
		}
		if c.want {
			w.isWhatWasSeen(t, list[0], v)
		}
	}
}

// isWhatWasSeen plays the recording to a viewer of its own.
func (w *world) isWhatWasSeen(t *testing.T, of recording.Info, seen *rfb.Client) {
	t.Helper()
	if of.Person != "ana" || of.Context != "office" || of.Speaks != "rfb" || of.Ended.IsZero() {
		t.Errorf("recorded of %+v", of)
	}
	var film bytes.Buffer
	events := map[string]bool{}
	err := w.Recordings.Play(context.Background(), of.ID, func(p recording.Piece) error {
		if p.Kind == recording.Shown {
			film.Write(p.Data)
		} else {
			events[string(p.Data)] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	v, err := rfb.NewClient(replay{bytes.NewReader(film.Bytes())}, rfb.Proof{})
	if err == nil {
		err = v.NextFrame()
	}
	if err != nil && err != io.EOF {
		t.Fatalf("play it: %v", err)
	}
	if !bytes.Equal(v.Image().Pix, seen.Image().Pix) || !events["first-frame"] {
		t.Errorf("what is played is not what was seen, or lacks its events %v", events)
	}
}

func TestWhatMustBeRecordedAndCannotIsNotShown(t *testing.T) {
	w := newWorld(t)
	w.rule(t, func(x *estate.ContextSpec) { x.Recording = estate.RecordRequired })
	if c, resp, err := w.dial(w.ticket(t, w.session(t, "one")), nil); err == nil || resp == nil || resp.StatusCode < 400 {
		if err == nil {
			c.Close()
		}
		t.Errorf("without a place for recordings: %v, want a refusal", err)
	}
	if n := w.calls.Load(); n != 0 {
		t.Errorf("the machine was reached %d times", n)
	}
}

// TestWhatIsToBeRecordedIsNotShownWhereNothingCanBeWritten has a place for
// recordings that takes none.
func TestWhatIsToBeRecordedIsNotShownWhereNothingCanBeWritten(t *testing.T) {
	for _, rule := range []estate.Recording{estate.RecordRequired, estate.RecordAllowed} {
		w := newWorld(t)
		dir := filepath.Join(t.TempDir(), "recordings")
		w.Recordings = recording.New(recording.Options{Dir: dir, KV: w.store.KV(), Now: time.Now, Random: rand.Reader, Log: slog.New(slog.DiscardHandler)})
		w.rule(t, func(x *estate.ContextSpec) { x.Recording = rule })
		if err := os.WriteFile(dir, []byte("where a folder should be"), 0o600); err != nil {
			t.Fatal(err)
		}
		s := w.session(t, "one")
		if _, err := store.Modify(t.Context(), w.store, "main", "one", func(s *estate.Session) error { s.Spec.Record = true; return nil }); err != nil {
			t.Fatal(err)
		}
		c, resp, err := w.dial(w.ticket(t, s), nil)
		if err == nil {
			c.Close()
			t.Errorf("%s, with a file for a folder: it is shown", rule)
		} else if resp == nil || resp.StatusCode < 400 {
			t.Errorf("%s, with a file for a folder: %v, want a refusal", rule, err)
		}
		if n := w.calls.Load(); n != 0 {
			t.Errorf("%s: the machine was reached %d times", rule, n)
		}
		// The control: with a folder it is shown, and recorded.
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		if c, _, err = w.dial(w.ticket(t, s), nil); err != nil {
			t.Fatalf("%s, with a folder: %v", rule, err)
		}
		if _, err := look(c, rfb.Proof{}); err != nil {
			t.Fatalf("%s, with a folder: %v", rule, err)
		}
		c.Close()
	}
}
