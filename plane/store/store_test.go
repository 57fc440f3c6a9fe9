package store_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/store"
	"consort.dev/consort/plane/store/mem"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T) *store.Store {
	t.Helper()
	s := store.New(mem.Open(mem.Options{}), store.Options{})
	t.Cleanup(func() { s.Close() })
	return s
}

func desktop(name string) *estate.Desktop {
	d := &estate.Desktop{Spec: estate.DesktopSpec{Blueprint: "clerk", Person: "ana"}}
	d.Head = estate.Head{Kind: "Desktop", Metadata: estate.Metadata{Name: name, Project: "office"}}
	return d
}

func person(name string) *estate.Person {
	return &estate.Person{Head: estate.Head{Kind: "Person", Metadata: estate.Metadata{Name: name}}}
}

func create(t *testing.T, s *store.Store, rs ...estate.Resource) {
	t.Helper()
	for _, r := range rs {
		if err := s.Create(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
}

func wantKind(t *testing.T, what string, err error, want fault.Kind) {
	t.Helper()
	if err == nil || fault.KindOf(err) != want {
		t.Errorf("%s = %v, want %v", what, err, want)
	}
}

func TestCreateMintsWhatThePlaneSets(t *testing.T) {
	s := open(t)
	d := desktop("d1")
	d.Metadata.UID, d.Metadata.Generation = "forged", 9
	create(t, s, d)
	got, err := store.Get[estate.Desktop](t.Context(), s, "office", "d1")
	if err != nil {
		t.Fatal(err)
	}
	m := got.Metadata
	if len(m.UID) != 36 || m.Generation != 1 || m.Created.IsZero() || m.Version == 0 {
		t.Errorf("stored %+v, want a minted uid, generation 1, a time and a version", m)
	}
	if m.Version != d.Metadata.Version || m.UID != d.Metadata.UID || got.APIVersion != estate.APIVersion {
		t.Errorf("the caller's object has %+v, the stored one %+v", d.Metadata, m)
	}
	wantKind(t, "a second Create", s.Create(t.Context(), desktop("d1")), fault.Exists)
}

func TestAbsentIsNotFoundAndNamed(t *testing.T) {
	_, err := store.Get[estate.Desktop](t.Context(), open(t), "office", "d9")
	wantKind(t, "Get", err, fault.NotFound)
	if got, want := err.Error(), "there is no desktop/office/d9"; got != want {
		t.Errorf("text = %q, want %q", got, want)
	}
}

func TestWhatIsNoNameNeverBecomesAKey(t *testing.T) {
	s := open(t)
	for _, name := range []string{"", "..", "a/b", "A", "-a", "a\x00"} {
		wantKind(t, fmt.Sprintf("Create(%q)", name), s.Create(t.Context(), desktop(name)), fault.Invalid)
	}
	d := desktop("d1")
	d.Metadata.Project = "../_"
	wantKind(t, "a project with slashes", s.Create(t.Context(), d), fault.Invalid)
	p := person("ana")
	p.Metadata.Project = "office"
	wantKind(t, "a person in a project", s.Create(t.Context(), p), fault.Invalid)
}

func TestUpdateComparesTheVersion(t *testing.T) {
	s := open(t)
	d := desktop("d1")
	create(t, s, d)
	stale := *d
	d.Spec.Power = estate.On
	if err := s.Update(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	stale.Spec.Title = "late"
	wantKind(t, "Update of an old version", s.Update(t.Context(), &stale), fault.Conflict)
	fresh := desktop("d1")
	wantKind(t, "Update without a version", s.Update(t.Context(), fresh), fault.Invalid)
	absent := desktop("d2")
	absent.Metadata.Version = 3
	wantKind(t, "Update of an absent object", s.Update(t.Context(), absent), fault.NotFound)
}

func TestGenerationCountsChangesOfTheSpec(t *testing.T) {
	s := open(t)
	d := desktop("d1")
	create(t, s, d)
	uid := d.Metadata.UID
	d.Status.State, d.Metadata.UID = estate.DesktopRunning, "forged"
	if err := s.Update(t.Context(), d); err != nil || d.Metadata.Generation != 1 || d.Metadata.UID != uid {
		t.Errorf("after a status: %v, %+v; want generation 1 and uid %s", err, d.Metadata, uid)
	}
	d.Spec.Power = estate.On
	if err := s.Update(t.Context(), d); err != nil || d.Metadata.Generation != 2 {
		t.Errorf("after a spec: %v, generation %d; want 2", err, d.Metadata.Generation)
	}
	version := d.Metadata.Version
	if err := s.Update(t.Context(), d); err != nil || d.Metadata.Version != version {
		t.Errorf("without a change: %v, version %d; want %d still", err, d.Metadata.Version, version)
	}
}

func TestModifyLosesNoWrite(t *testing.T) {
	s := open(t)
	create(t, s, desktop("d1"))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 10 {
				if _, err := store.Modify(t.Context(), s, "office", "d1", func(d *estate.Desktop) error { d.Spec.Resets++; return nil }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	d, err := store.Get[estate.Desktop](t.Context(), s, "office", "d1")
	if err != nil || d.Spec.Resets != 80 {
		t.Errorf("80 changes made %d, %v", d.Spec.Resets, err)
	}
}

// overtaken is an engine in which somebody else writes just before a commit.
type overtaken struct {
	store.KV
	before func()
}

func (o *overtaken) Commit(ctx context.Context, txn store.Txn) (int64, error) {
	if before := o.before; before != nil {
		o.before = nil
		before()
	}
	return o.KV.Commit(ctx, txn)
}

func TestWritesThatAreOvertaken(t *testing.T) {
	for _, c := range []struct {
		name  string
		act   func(*store.Store, *estate.Desktop) error
		want  fault.Kind
		ok    bool
		title string // afterwards
	}{
		{name: "Update", act: func(s *store.Store, d *estate.Desktop) error {
			d.Spec.Power = estate.On
			return s.Update(t.Context(), d)
		}, want: fault.Conflict, title: "theirs"},
		{name: "Delete", act: func(s *store.Store, d *estate.Desktop) error {
			return s.Delete(t.Context(), d.Ref(), d.Metadata.Version)
		}, want: fault.Conflict, title: "theirs"},
		{name: "Modify", act: func(s *store.Store, d *estate.Desktop) error {
			_, err := store.Modify(t.Context(), s, "office", "d1", func(d *estate.Desktop) error { d.Spec.Title += " and mine"; return nil })
			return err
		}, ok: true, title: "theirs and mine"},
		{name: "Delete of any version", act: func(s *store.Store, d *estate.Desktop) error { return s.Delete(t.Context(), d.Ref(), 0) }, ok: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			kv := &overtaken{KV: mem.Open(mem.Options{})}
			s, other := store.New(kv, store.Options{}), store.New(kv.KV, store.Options{})
			defer s.Close()
			d := desktop("d1")
			create(t, s, d)
			kv.before = func() {
				if _, err := store.Modify(t.Context(), other, "office", "d1", func(d *estate.Desktop) error { d.Spec.Title = "theirs"; return nil }); err != nil {
					t.Error(err)
				}
			}
			err := c.act(s, d)
			if c.ok != (err == nil) || err != nil && fault.KindOf(err) != c.want {
				t.Errorf("%v, want %v", err, c.want)
			}
			got, _ := store.Get[estate.Desktop](t.Context(), s, "office", "d1")
			if c.title == "" != (got == nil) || got != nil && got.Spec.Title != c.title {
				t.Errorf("afterwards %+v, want title %q", got, c.title)
			}
		})
	}
}

func TestModifyReturnsTheErrorOfTheChange(t *testing.T) {
	s := open(t)
	create(t, s, desktop("d1"))
	no := errors.New("no")
	if _, err := store.Modify(t.Context(), s, "office", "d1", func(*estate.Desktop) error { return no }); err != no {
		t.Errorf("Modify = %v, want %v", err, no)
	}
}

func TestDeleteWaitsForFinalizers(t *testing.T) {
	s := open(t)
	d := desktop("d1")
	d.Metadata.Finalizers = []string{"lifecycle"}
	create(t, s, d)
	ref := d.Ref()
	for range 2 {
		if err := s.Delete(t.Context(), ref, 0); err != nil {
			t.Fatal(err)
		}
	}
	d, err := store.Get[estate.Desktop](t.Context(), s, "office", "d1")
	if err != nil || d.Metadata.Deleting.IsZero() {
		t.Fatalf("while a finalizer is there: %+v, %v; want it marked", d, err)
	}
	d.Metadata.Finalizers = append(d.Metadata.Finalizers, "late")
	wantKind(t, "a new finalizer", s.Update(t.Context(), d), fault.Invalid)
	d.Metadata.Finalizers = nil
	if err := s.Update(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	_, err = store.Get[estate.Desktop](t.Context(), s, "office", "d1")
	wantKind(t, "Get after the last finalizer", err, fault.NotFound)
	if err := s.Delete(t.Context(), ref, 0); err != nil {
		t.Errorf("Delete of an absent object = %v", err)
	}
}

func TestDeleteComparesTheVersion(t *testing.T) {
	s := open(t)
	d := desktop("d1")
	create(t, s, d)
	wantKind(t, "Delete of another version", s.Delete(t.Context(), d.Ref(), d.Metadata.Version+1), fault.Conflict)
	if err := s.Delete(t.Context(), d.Ref(), d.Metadata.Version); err != nil {
		t.Error(err)
	}
}

func TestCommitDoesAllOrNothing(t *testing.T) {
	s := open(t)
	a, b, c := desktop("a"), desktop("b"), desktop("c")
	create(t, s, a)
	create(t, s, c)
	a.Spec.Title = "new"
	wantKind(t, "Commit", s.Commit(t.Context(), store.Put(a), store.Create(b), store.Create(desktop("a2")), store.Remove(c.Ref(), c.Metadata.Version+1)), fault.Conflict)
	if _, err := store.Get[estate.Desktop](t.Context(), s, "office", "b"); fault.KindOf(err) != fault.NotFound {
		t.Errorf("half of a set was stored: %v", err)
	}
	wantKind(t, "an object twice", s.Commit(t.Context(), store.Put(a), store.Remove(a.Ref(), 0)), fault.Invalid)
	if err := s.Commit(t.Context(), store.Put(a), store.Create(b)); err != nil {
		t.Fatal(err)
	}
	if a.Metadata.Version != b.Metadata.Version {
		t.Errorf("versions %d and %d, want one revision", a.Metadata.Version, b.Metadata.Version)
	}
	wantKind(t, "create what is there", s.Commit(t.Context(), store.Create(desktop("c")), store.Create(desktop("b"))), fault.Exists)
}

func TestPageGoesThroughEverythingOnce(t *testing.T) {
	s := open(t)
	for i := range 25 {
		create(t, s, desktop(fmt.Sprintf("d%02d", i)))
	}
	other := desktop("d00")
	other.Metadata.Project = "school"
	create(t, s, other, person("ana"))
	var got []string
	for after, more := "", true; more; {
		var rs []estate.Resource
		var err error
		if rs, _, more, err = s.Page(t.Context(), "Desktop", "", after, 10); err != nil {
			t.Fatal(err)
		}
		for _, r := range rs {
			after = store.Cursor(r.Header().Ref())
			got = append(got, after)
		}
	}
	if len(got) != 26 || !slices.IsSorted(got) || got[25] != "school/d00" {
		t.Errorf("pages gave %d objects: %v", len(got), got)
	}
	in, _, err := store.List[estate.Desktop](t.Context(), s, "school")
	if err != nil || len(in) != 1 {
		t.Errorf("List(school) = %d objects, %v; want 1", len(in), err)
	}
}

func TestWatchDeliversKindsAskedForFromTheRevisionOn(t *testing.T) {
	s := open(t)
	create(t, s, desktop("before"))
	_, revision, err := store.List[estate.Desktop](t.Context(), s, "")
	if err != nil {
		t.Fatal(err)
	}
	d := desktop("d1")
	create(t, s, person("ana"), d)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events, err := s.Watch(ctx, revision, "Desktop")
	if err != nil {
		t.Fatal(err)
	}
	if e := <-events; e.Object.Header().Ref() != d.Ref() || e.Revision != d.Metadata.Version || e.Object.Header().Metadata.Version != e.Revision {
		t.Errorf("first event %+v, want d1", e)
	}
	if err := s.Delete(t.Context(), d.Ref(), 0); err != nil {
		t.Fatal(err)
	}
	e := <-events
	if got := e.Object.(*estate.Desktop); !e.Deleted || got.Spec.Person != "ana" {
		t.Errorf("event %+v, want the deletion with what was deleted", e)
	}
	cancel()
	for range events {
		t.Error("an event after the end")
	}
}

// counting counts engine watches.
type counting struct {
	store.KV
	mu      sync.Mutex
	watches int
}

func (c *counting) Watch(ctx context.Context, prefix string, after int64) (<-chan store.Batch, error) {
	c.mu.Lock()
	c.watches++
	c.mu.Unlock()
	return c.KV.Watch(ctx, prefix, after)
}

func TestOneEngineWatchServesManyAndWritesStayFast(t *testing.T) {
	const many = 5000
	kv := &counting{KV: mem.Open(mem.Options{})}
	s := store.New(kv, store.Options{})
	defer s.Close()
	var told sync.WaitGroup
	for range many {
		events, err := s.Watch(t.Context(), 0, "Desktop")
		if err != nil {
			t.Fatal(err)
		}
		told.Add(1)
		go func() {
			if e := <-events; e.Object.Header().Metadata.Name != "d1" {
				t.Errorf("told of %v", e)
			}
			told.Done()
			for range events {
			}
		}()
	}
	began := time.Now()
	create(t, s, desktop("d1"))
	put := time.Since(began)
	told.Wait()
	t.Logf("put %v, all %d told after %v", put, many, time.Since(began))
	if kv.watches != 1 {
		t.Errorf("%d engine watches, want 1", kv.watches)
	}
	if put > 100*time.Millisecond {
		t.Errorf("the put took %v with %d watchers", put, many)
	}
}

func TestWatcherThatFallsBehindIsToldToListAgain(t *testing.T) {
	s := open(t)
	events, err := s.Watch(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	create(t, s, desktop("d1"))
	for i := range 6000 {
		if _, err := store.Modify(t.Context(), s, "office", "d1", func(d *estate.Desktop) error { d.Spec.Resets = int64(i + 1); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	last, closed := int64(0), time.After(10*time.Second)
	for {
		select {
		case e, ok := <-events:
			if !ok {
				_, err := s.Watch(t.Context(), last)
				wantKind(t, "Watch from where it ended", err, fault.Stale)
				return
			}
			if last != 0 && e.Revision != last+1 {
				t.Fatalf("revision %d after %d: a gap", e.Revision, last)
			}
			last = e.Revision
			if e.Object.(*estate.Desktop).Spec.Resets == 6000 {
				t.Fatal("the watcher was served everything; it never fell behind")
			}
		case <-closed:
			t.Fatal("neither events nor an end")
		}
	}
}

func TestWatchResumesAfterTheProcessWasGone(t *testing.T) {
	kv := mem.Open(mem.Options{})
	defer kv.Close()
	first := store.New(kv, store.Options{})
	create(t, first, desktop("d1"))
	create(t, first, desktop("d2"))
	second := store.New(kv, store.Options{})
	defer second.Close()
	if _, err := second.Watch(t.Context(), 3); err != nil { // starts its hub
		t.Fatal(err)
	}
	events, err := second.Watch(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	if e := <-events; e.Object.Header().Metadata.Name != "d2" {
		t.Errorf("resumed with %+v, want d2", e)
	}
}

func TestEventsGoAfterAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := store.New(mem.Open(mem.Options{}), store.Options{})
		defer s.Close()
		create(t, s, event("e1"))
		time.Sleep(59 * time.Minute)
		if _, err := store.Get[estate.Event](t.Context(), s, "office", "e1"); err != nil {
			t.Errorf("after 59 minutes: %v", err)
		}
		create(t, s, event("e2"))
		time.Sleep(8 * time.Minute)
		_, err := store.Get[estate.Event](t.Context(), s, "office", "e1")
		wantKind(t, "Get after 67 minutes", err, fault.NotFound)
		if _, err := store.Get[estate.Event](t.Context(), s, "office", "e2"); err != nil {
			t.Errorf("a younger event: %v", err)
		}
	})
}

func event(name string) *estate.Event {
	return &estate.Event{Head: estate.Head{Kind: "Event", Metadata: estate.Metadata{Name: name, Project: "office"}}}
}
