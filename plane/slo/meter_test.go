package slo_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"consort.dev/consort/fault"
	"consort.dev/consort/plane/slo"
)

// TestReadings follows one source; each row is the next reading.
func TestReadings(t *testing.T) {
	m := slo.NewMeter(began)
	for _, c := range []struct {
		name        string
		source      string
		started     time.Time
		good, total int64
		want        slo.Count
		known       bool
		kind        fault.Kind // Internal: none
	}{
		{"was there before us", "a", in(-9), 90, 100, slo.Count{}, false, fault.Internal},
		{"counts on", "a", in(-9), 95, 106, slo.Count{Good: 5, Total: 6}, true, fault.Internal},
		{"nothing new", "a", in(-9), 95, 106, slo.Count{}, true, fault.Internal},
		{"read while it counted", "a", in(-9), 97, 107, slo.Count{}, false, fault.Invalid},
		{"told with the next", "a", in(-9), 97, 108, slo.Count{Good: 2, Total: 2}, true, fault.Internal},
		{"starts again and says so, past where it was", "a", in(7), 200, 201, slo.Count{Good: 200, Total: 201}, true, fault.Internal},
		{"starts again and does not say", "a", in(7), 3, 4, slo.Count{Good: 3, Total: 4}, true, fault.Internal},
		{"starts again with more failures", "a", in(7), 1, 9, slo.Count{Good: 1, Total: 9}, true, fault.Internal},
		{"nonsense", "a", in(7), 5, 4, slo.Count{}, false, fault.Invalid},
		{"another one, new since us", "b", in(8), 1, 2, slo.Count{Good: 1, Total: 2}, true, fault.Internal},
		{"one that does not say since when", "c", time.Time{}, 7, 7, slo.Count{}, false, fault.Internal},
		{"counts on", "c", time.Time{}, 8, 9, slo.Count{Good: 1, Total: 2}, true, fault.Internal},
	} {
		got, known, err := m.Read(slo.Reading{Source: c.source, Started: c.started, Count: slo.Count{Good: c.good, Total: c.total}})
		if got != c.want || known != c.known || fault.KindOf(err) != c.kind && err != nil || (err != nil) != (c.kind != fault.Internal) {
			t.Errorf("%s: %v, %v, %v; want %v, %v, %v", c.name, got, known, err, c.want, c.known, c.kind)
		}
	}
	m.Forget("a")
	if d := cmp.Diff([]string{"b", "c"}, m.Sources()); d != "" {
		t.Error(d)
	}
}

// TestAnOldSnapshotLosesNothing kills the plane ten minutes after its snapshot.
func TestAnOldSnapshotLosesNothing(t *testing.T) {
	l, m := slo.NewLedger(began, day), slo.NewMeter(began)
	r := slo.Reading{Source: "web-0", Started: in(0).Add(time.Second)}
	step := func(at int) {
		t.Helper()
		l.Advance(in(at))
		r.Total, r.Good = r.Total+10, r.Good+9
		fresh, known, err := m.Read(r)
		if err != nil || !known {
			t.Fatal(known, err)
		}
		if err := l.Add(in(at), fresh); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 20 {
		step(i)
	}
	kept := slo.Snapshot(l, m)
	for i := 20; i < 30; i++ {
		step(i)
	}
	var err error
	if l, m, err = slo.Restore(kept); err != nil {
		t.Fatal(err)
	}
	step(30)
	if got := l.Count(in(0), in(31)); got != (slo.Count{Good: 279, Total: 310}) {
		t.Errorf("after the kill %v, want 279 of 310", got)
	}
}

func TestBrokenSnapshotsAreRefused(t *testing.T) {
	l, m := slo.NewLedger(began, day), slo.NewMeter(began)
	l.Advance(in(30))
	if err := l.Add(in(29), slo.Count{Good: 70, Total: 75}); err != nil {
		t.Fatal(err)
	}
	b := slo.Snapshot(l, m)
	if _, _, err := slo.Restore(b); err != nil {
		t.Fatal(err)
	}
	for i := range b {
		broken := bytes.Clone(b)
		broken[i] ^= 1
		if _, _, err := slo.Restore(broken); !errors.Is(err, fault.Invalid) {
			t.Fatalf("with byte %d changed: %v, want Invalid", i, err)
		}
		if _, _, err := slo.Restore(b[:i]); !errors.Is(err, fault.Invalid) {
			t.Fatalf("the first %d bytes: %v, want Invalid", i, err)
		}
	}
}

func FuzzRestore(f *testing.F) {
	l, m := slo.NewLedger(began, 20*minute), slo.NewMeter(began)
	l.Advance(in(30))
	_ = l.Add(in(29), slo.Count{Good: 70, Total: 75})
	_, _, _ = m.Read(slo.Reading{Source: "a", Count: slo.Count{Good: 1, Total: 2}})
	b := slo.Snapshot(l, m)
	f.Add(b[:len(b)-4])
	f.Fuzz(func(t *testing.T, body []byte) {
		l, m, err := slo.Restore(slo.Sealed(body))
		if err != nil {
			if !errors.Is(err, fault.Invalid) {
				t.Errorf("Restore = %v, want Invalid", err)
			}
			return
		}
		again := slo.Snapshot(l, m)
		l2, m2, err := slo.Restore(again)
		if err != nil || !bytes.Equal(again, slo.Snapshot(l2, m2)) {
			t.Errorf("what was restored is not written the same twice: %v", err)
		}
	})
}
