package gateway

import (
	"context"
	"crypto/rand"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/audit"
	"consort.dev/consort/estate"
	"consort.dev/consort/internal/rfb"
	"consort.dev/consort/plane/store"
)

// audited gives the world a log, which lies in the directory. Its reserve is
// larger than any disk when acts are not to begin.
func (w *world) audited(t *testing.T, reserve int64) (l *audit.Log, dir string) {
	t.Helper()
	dir = t.TempDir()
	l, err := audit.Open(t.Context(), audit.Options{Dir: dir, KV: w.KV, Now: time.Now, Random: rand.Reader, Reserve: reserve})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	w.Audit, w.strangers.To = l, l
	return l, dir
}

// told returns the records of an act, once there are n.
func toldOf(t *testing.T, l *audit.Log, what string, n int) []audit.Record {
	t.Helper()
	var rs []audit.Record
	eventually(t, what+" is told", func() bool {
		rs = nil
		if err := l.Read(context.Background(), audit.Query{What: what}, func(r audit.Record) error { rs = append(rs, r); return nil }); err != nil {
			t.Fatal(err)
		}
		return len(rs) >= n
	})
	return rs
}

func TestASessionIsToldFromItsBeginningToItsEnd(t *testing.T) {
	w := newWorld(t)
	l, dir := w.audited(t, -1)
	ticket := w.ticket(t, w.session(t, "one"))
	c, _, err := w.dial(ticket, nil)
	if err != nil {
		t.Fatal(err)
	}
	begun := toldOf(t, l, "session.open", 1)[0]
	if begun.Who != "ana" || begun.On != "session/main/one" || begun.Outcome != audit.Begun || begun.From != "127.0.0.1" || begun.With["desktop"] != "ana-clerk" {
		t.Errorf("opening: %+v", begun)
	}
	if _, err := look(c, rfb.Proof{}); err != nil {
		t.Fatal(err)
	}
	const canary = "canary in the clipboard"
	if err := rfb.Write(c, rfb.Text{Latin1: []byte(canary)}); err != nil {
		t.Fatal(err)
	}
	if r := toldOf(t, l, "clipboard.in", 1)[0]; r.Who != "ana" || r.On != "session/main/one" || r.With["bytes"] != "23" {
		t.Errorf("what crossed: %+v", r)
	}
	if _, err := store.Modify(t.Context(), w.store, "main", "one", func(s *estate.Session) error { s.Spec.End = true; return nil }); err != nil {
		t.Fatal(err)
	}
	if r := toldOf(t, l, "session.end", 1)[0]; r.Of != begun.Sequence || r.Outcome != audit.Done || r.With["because"] != "ended" {
		t.Errorf("the end: %+v", r)
	}
	c.Close()
	if _, _, err := w.dial(ticket, nil); err == nil {
		t.Fatal("a used ticket opens something")
	}
	if r := toldOf(t, l, "session.open", 2)[1]; r.Outcome != audit.Refused || r.Who != "" {
		t.Errorf("a used ticket: %+v", r)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil || strings.Contains(string(b), canary) || strings.Contains(string(b), ticket) {
			t.Errorf("%s holds what was in the clipboard, or the ticket: %v", f, err)
		}
	}
}

func TestASessionThatCannotBeToldIsNotOpened(t *testing.T) {
	w := newWorld(t)
	w.audited(t, 1<<62)
	_, resp, err := w.dial(w.ticket(t, w.session(t, "one")), nil)
	if err == nil || resp.StatusCode != http.StatusInsufficientStorage {
		t.Errorf("with a full disk: %v, want a refusal with %d", err, http.StatusInsufficientStorage)
	}
	if n := w.calls.Load(); n != 0 {
		t.Errorf("%d machines were reached", n)
	}
}
