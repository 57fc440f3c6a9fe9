package audit_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"consort.dev/consort/audit"
	"consort.dev/consort/audit/chain"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/store"
	"consort.dev/consort/plane/store/mem"
)

func options(dir string, kv store.KV) audit.Options {
	return audit.Options{Dir: dir, KV: kv, Now: time.Now, Random: rand.Reader}
}

func open(t *testing.T, o audit.Options) *audit.Log {
	t.Helper()
	l, err := audit.Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func record(t *testing.T, l *audit.Log, a audit.Act) uint64 {
	t.Helper()
	n, err := l.Record(context.Background(), a)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// all returns the records that match.
func all(t *testing.T, l *audit.Log, q audit.Query) []audit.Record {
	t.Helper()
	var rs []audit.Record
	if err := l.Read(context.Background(), q, func(r audit.Record) error { rs = append(rs, r); return nil }); err != nil {
		t.Fatal(err)
	}
	return rs
}

func whole(t *testing.T, l *audit.Log) chain.Report {
	t.Helper()
	r, err := l.Verify(context.Background())
	if err != nil || r.Broken != nil {
		t.Fatalf("verify = %+v, %v", r.Broken, err)
	}
	return r
}

func TestRecordsAreFoundAgain(t *testing.T) {
	l := open(t, options(t.TempDir(), mem.Open(mem.Options{})))
	defer l.Close()
	record(t, l, audit.Act{Who: "ana", What: "sign-in", From: "10.0.0.1", Outcome: audit.Done, With: map[string]string{"how": "passkey"}})
	record(t, l, audit.Act{Who: "bob", What: "grant.change", On: "grant/default/office", Outcome: audit.Begun})
	record(t, l, audit.Act{Who: "bob", What: "grant.delete", On: "grant/default/plans", Outcome: audit.Refused, Why: "denied"})
	for _, c := range []struct {
		name string
		q    audit.Query
		want []uint64
	}{
		{"everything", audit.Query{}, []uint64{1, 2, 3, 4}},
		{"who", audit.Query{Who: "bob"}, []uint64{3, 4}},
		{"what", audit.Query{What: "sign-in"}, []uint64{2}},
		{"what begins so", audit.Query{What: "grant.*"}, []uint64{3, 4}},
		{"what, without a star", audit.Query{What: "grant"}, nil},
		{"on", audit.Query{On: "grant/default/plans"}, []uint64{4}},
		{"on begins so", audit.Query{On: "grant/default/*"}, []uint64{3, 4}},
		{"after", audit.Query{After: 3}, []uint64{4}},
		{"last two", audit.Query{Last: 2}, []uint64{3, 4}},
		{"last nine", audit.Query{Last: 9}, []uint64{1, 2, 3, 4}},
		{"last of bob", audit.Query{Who: "bob", Last: 1}, []uint64{4}},
		{"since later", audit.Query{Since: time.Now().Add(time.Hour)}, nil},
		{"until earlier", audit.Query{Until: time.Now().Add(-time.Hour)}, nil},
		{"since earlier, until later", audit.Query{Since: time.Now().Add(-time.Hour), Until: time.Now().Add(time.Hour)}, []uint64{1, 2, 3, 4}},
	} {
		var got []uint64
		for _, r := range all(t, l, c.q) {
			got = append(got, r.Sequence)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: records %v, want %v", c.name, got, c.want)
		}
	}
	if r := all(t, l, audit.Query{Who: "ana"})[0]; r.From != "10.0.0.1" || r.With["how"] != "passkey" || time.Since(r.Time) > time.Minute {
		t.Errorf("read back %+v", r)
	}
}

func TestAnActIsToldBeforeAndAfter(t *testing.T) {
	l := open(t, options(t.TempDir(), mem.Open(mem.Options{})))
	defer l.Close()
	ctx := context.Background()
	for _, c := range []struct {
		err  error
		want audit.Outcome
		why  string
	}{
		{nil, audit.Done, ""},
		{fault.Denied.Errorf("no"), audit.Refused, "denied"},
		{fault.Conflict.Errorf("no"), audit.Failed, "conflict"},
	} {
		before := 0
		err := audit.Do(ctx, l, audit.Act{Who: "ana", What: "connect", With: map[string]string{"asked": "1"}}, func(with map[string]string) error {
			before = len(all(t, l, audit.Query{}))
			with["session"] = "s"
			return c.err
		})
		if !errors.Is(err, c.err) {
			t.Errorf("Do = %v, want %v", err, c.err)
		}
		rs := all(t, l, audit.Query{})
		begun, end := rs[len(rs)-2], rs[len(rs)-1]
		if before != len(rs)-1 || begun.Outcome != audit.Begun || begun.With["asked"] != "1" {
			t.Errorf("before the act there were %d of %d records, the last %+v", before, len(rs), begun)
		}
		if end.Outcome != c.want || end.Why != c.why || end.Of != begun.Sequence || end.With["session"] != "s" {
			t.Errorf("after %v: %+v", c.err, end)
		}
	}
}

// full is a recorder that cannot write.
type full struct{}

func (full) Record(context.Context, audit.Act) (uint64, error) {
	return 0, fault.NoCapacity.Errorf("full")
}

func TestWhatCannotBeWrittenIsNotDone(t *testing.T) {
	err := audit.Do(context.Background(), full{}, audit.Act{What: "connect"}, func(map[string]string) error {
		t.Error("it was done")
		return nil
	})
	if !errors.Is(err, fault.NoCapacity) {
		t.Errorf("Do = %v, want no-capacity", err)
	}
}

func TestTextOfErrorsAndLongTextsAreNotKept(t *testing.T) {
	dir := t.TempDir()
	l := open(t, options(dir, mem.Open(mem.Options{})))
	const canary = "hunter2-canary"
	if err := audit.Tell(context.Background(), l, audit.Act{What: "sign-in"}, fault.Unauthenticated.Errorf("%q is wrong", canary)); err != nil {
		t.Fatal(err)
	}
	many := map[string]string{}
	for i := range 1000 {
		many[strconv.Itoa(i)] = strings.Repeat("ä", 1000)
	}
	record(t, l, audit.Act{Who: strings.Repeat("x", 1<<20), What: "a\nb\xff", Outcome: audit.Done, With: many})
	rs := all(t, l, audit.Query{})
	if last := rs[len(rs)-1]; len(last.Who) > 256 || len(last.With) > 129 || last.What != "a\nb\uFFFD" || len(last.With["more"]) == 0 {
		t.Errorf("kept %d bytes of who, %d entries, what %q", len(last.Who), len(last.With), last.What)
	}
	whole(t, l)
	l.Close()
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil || strings.Contains(string(b), canary) {
			t.Errorf("%s holds the text of an error: %v", f, err)
		}
		if n := strings.Count(string(b), "\n"); n != 4 {
			t.Errorf("%s has %d lines for a head and three records", f, n)
		}
	}
}

func TestManyWriteAtOnce(t *testing.T) {
	l := open(t, options(t.TempDir(), mem.Open(mem.Options{})))
	defer l.Close()
	const writers, each = 50, 20
	var mu sync.Mutex
	acked := map[uint64]string{}
	var all50 sync.WaitGroup
	for w := range writers {
		all50.Go(func() {
			for i := range each {
				who := fmt.Sprintf("w%d-%d", w, i)
				n, err := l.Record(context.Background(), audit.Act{Who: who, What: "test", Outcome: audit.Done})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				acked[n] = who
				mu.Unlock()
			}
		})
	}
	all50.Wait()
	if len(acked) != writers*each {
		t.Fatalf("%d sequences for %d records", len(acked), writers*each)
	}
	for _, r := range all(t, l, audit.Query{What: "test"}) {
		if acked[r.Sequence] != r.Who {
			t.Errorf("record %d is %s's; it was acknowledged to %q", r.Sequence, r.Who, acked[r.Sequence])
		}
	}
	if r := whole(t, l); r.Frames != writers*each+1 {
		t.Errorf("%d records, want %d", r.Frames, writers*each+1)
	}
}

// TestTamperingBetweenTwoRunsIsSeen changes files while the plane is down.
func TestTamperingBetweenTwoRunsIsSeen(t *testing.T) {
	for name, harm := range map[string]func(file string, b []byte) error{
		"tail cut off": func(f string, b []byte) error {
			return os.WriteFile(f, b[:strings.LastIndex(string(b[:len(b)-1]), "\n")+1], 0o600)
		},
		"everything gone": func(f string, _ []byte) error { return os.Remove(f) },
		"who changed": func(f string, b []byte) error {
			return os.WriteFile(f, []byte(strings.Replace(string(b), "ana", "bob", 1)), 0o600)
		},
		"nothing": func(string, []byte) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			dir, kv := t.TempDir(), mem.Open(mem.Options{})
			l := open(t, options(dir, kv))
			record(t, l, audit.Act{Who: "ana", What: "grant.delete", Outcome: audit.Done})
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(dir, "00000001.chain")
			b, err := os.ReadFile(file)
			if err == nil {
				err = harm(file, b)
			}
			if err != nil {
				t.Fatal(err)
			}
			l = open(t, options(dir, kv)) // the plane starts all the same
			defer l.Close()
			if n := record(t, l, audit.Act{What: "test", Outcome: audit.Done}); n != 4 {
				t.Errorf("the log goes on with record %d, want 4: 2 were sealed, and none is used twice", n)
			}
			r, err := l.Verify(context.Background())
			if err != nil || (r.Broken == nil) != (name == "nothing") {
				t.Fatalf("verify: %v, %v", r.Broken, err)
			}
			if r.Broken != nil && r.Broken.File != file {
				t.Errorf("found in %s, want %s", r.Broken.File, file)
			}
		})
	}
}

func TestActsBeginOnlyWhileThereIsRoom(t *testing.T) {
	o := options(t.TempDir(), mem.Open(mem.Options{}))
	o.Reserve = 1 << 62
	l := open(t, o)
	defer l.Close()
	_, err := l.Record(context.Background(), audit.Act{What: "connect", Outcome: audit.Begun})
	if !errors.Is(err, fault.NoCapacity) || !strings.Contains(err.Error(), "nothing was done") {
		t.Errorf("an act begins on a full disk: %v", err)
	}
	record(t, l, audit.Act{What: "session.end", Outcome: audit.Done}) // what has happened is told from the reserve
	if rs := all(t, l, audit.Query{}); len(rs) != 2 || rs[1].What != "session.end" {
		t.Errorf("the log has %+v", rs)
	}
}

func TestAnOptionalLogSaysHowManyItMissed(t *testing.T) {
	o := options(t.TempDir(), mem.Open(mem.Options{}))
	o.Reserve, o.Optional = 1<<62, true
	l := open(t, o)
	defer l.Close()
	for range 3 {
		if n, err := l.Record(context.Background(), audit.Act{What: "connect", Outcome: audit.Begun}); err != nil || n != 0 {
			t.Errorf("Record = %d, %v, want 0 and to go on", n, err)
		}
	}
	record(t, l, audit.Act{What: "session.end", Outcome: audit.Done})
	record(t, l, audit.Act{What: "session.end", Outcome: audit.Done})
	rs := all(t, l, audit.Query{})
	if len(rs) != 4 || rs[1].What != "audit.gap" || rs[1].With["missed"] != "3" {
		t.Errorf("the log has %+v", rs)
	}
}

// TestFullDisk fills a real file system of 128 KiB.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=128k"); err != nil {
		t.Skipf("no file system to fill: %v", err)
	}
	defer func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) }()
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 32<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	o := options(dir, mem.Open(mem.Options{}))
	o.Reserve = -1
	l := open(t, o)
	defer l.Close()
	acked := uint64(0)
	for {
		n, err := l.Record(context.Background(), audit.Act{What: "connect", Outcome: audit.Begun, With: map[string]string{"x": strings.Repeat("x", 200)}})
		if err != nil {
			if !errors.Is(err, fault.NoCapacity) {
				t.Fatalf("on a full disk: %v, want no-capacity", err)
			}
			break
		}
		acked = n
	}
	if acked < 50 {
		t.Fatalf("full after %d records", acked)
	}
	if r := whole(t, l); r.Last != acked || len(r.Torn) != 0 {
		t.Errorf("full: %+v, want %d records and nothing torn", r, acked)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	record(t, l, audit.Act{What: "connect", Outcome: audit.Begun})
	if r := whole(t, l); r.Last != acked+1 {
		t.Errorf("after room was made: the last is %d, want %d", r.Last, acked+1)
	}
}

func TestOldSegmentsRetireAndTheLogSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, kv := t.TempDir(), mem.Open(mem.Options{})
		o := options(dir, kv)
		o.Keep, o.Every = 72*time.Hour, time.Hour
		l := open(t, o)
		defer kv.Close()
		defer l.Close()
		for day := range 10 {
			record(t, l, audit.Act{Who: fmt.Sprint("day", day), What: "test", Outcome: audit.Done})
			time.Sleep(24 * time.Hour)
		}
		r := whole(t, l)
		if files, _ := filepath.Glob(filepath.Join(dir, "*.chain")); r.First < 5 || len(files) > 6 {
			t.Errorf("after ten days the log begins at record %d in %d files", r.First, len(files))
		}
		rs := all(t, l, audit.Query{What: "audit.retire"})
		if len(rs) == 0 || rs[0].Outcome != audit.Begun || rs[0].With["hash"] == "" {
			t.Errorf("records of retiring: %+v", rs)
		}
		if rs := all(t, l, audit.Query{Who: "day9"}); len(rs) != 1 {
			t.Errorf("the newest record is not there")
		}
	})
}

func TestRecordsAfterTheEndAreRefused(t *testing.T) {
	l := open(t, options(t.TempDir(), mem.Open(mem.Options{})))
	var writers sync.WaitGroup
	for range 50 {
		writers.Go(func() {
			for {
				_, err := l.Record(context.WithoutCancel(t.Context()), audit.Act{What: "test", Outcome: audit.Done})
				if errors.Is(err, fault.Unavailable) {
					return
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	writers.Wait() // nobody waits for ever
}

func TestFollowGivesWhatComes(t *testing.T) {
	l := open(t, options(t.TempDir(), mem.Open(mem.Options{})))
	defer l.Close()
	record(t, l, audit.Act{Who: "ana", What: "old", Outcome: audit.Done})
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	got := make(chan audit.Record)
	go func() {
		_ = l.Follow(ctx, audit.Query{Who: "ana", Last: 1}, func(r audit.Record) error { got <- r; return nil })
		close(got)
	}()
	if r := <-got; r.What != "old" {
		t.Errorf("first comes %+v", r)
	}
	for _, who := range []string{"bob", "ana", "bob", "ana"} {
		n := record(t, l, audit.Act{Who: who, What: "new", Outcome: audit.Done})
		if who == "ana" {
			if r := <-got; r.Sequence != n {
				t.Errorf("follow gives %d, want %d", r.Sequence, n)
			}
		}
	}
	stop()
	if _, more := <-got; more {
		t.Error("more than was asked for")
	}
}
