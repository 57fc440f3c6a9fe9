package store

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// tries bounds how often a write that loses a race is worked out again.
const tries = 32

// Edit is one write of a Commit. Make it with Put, Create, Remove or Raw.
type Edit struct {
	verb    verb
	object  estate.Resource
	ref     estate.Ref
	version int64
	uid     string // of a new object; minted when empty
	raw     Txn
}

type verb uint8

const (
	create verb = iota
	put
	remove
	raw
)

// Create stores a new object: see Store.Create.
func Create(r estate.Resource) Edit { return Edit{verb: create, object: r, ref: r.Header().Ref()} }

// CreateAs stores a new object whose uid was minted elsewhere, as that of a
// machine its hypervisor had before us.
func CreateAs(r estate.Resource, uid string) Edit {
	e := Create(r)
	e.uid = uid
	return e
}

// Put stores a new version of an object: see Store.Update.
func Put(r estate.Resource) Edit { return Edit{verb: put, object: r, ref: r.Header().Ref()} }

// Remove deletes an object: see Store.Delete.
func Remove(ref estate.Ref, version int64) Edit {
	return Edit{verb: remove, ref: ref, version: version}
}

// Raw adds comparisons and writes of keys that are not objects.
func Raw(t Txn) Edit { return Edit{verb: raw, raw: t} }

// Create stores a new object, mints its uid and sets version, generation and
// time of creation in r. One that is there already is fault.Exists.
func (s *Store) Create(ctx context.Context, r estate.Resource) error {
	return s.Commit(ctx, Create(r))
}

// Update stores r if its version is still the newest, and sets the new version
// in r. A spec that changed raises the generation. What only the store sets
// (uid, created, deleting) stays as it is. An object whose deletion was asked
// for takes no new finalizers, and is gone when the last one is. Nothing
// changed is success without a write; a newer version is fault.Conflict; an
// absent object is fault.NotFound.
func (s *Store) Update(ctx context.Context, r estate.Resource) error {
	return s.Commit(ctx, Put(r))
}

// Delete asks for the object to go. One with finalizers is marked as deleting
// and goes with its last finalizer. Absent, or marked already, is success. A
// version other than 0 must be the newest, else fault.Conflict.
func (s *Store) Delete(ctx context.Context, ref estate.Ref, version int64) error {
	return s.Commit(ctx, Remove(ref, version))
}

// Modify reads the object, changes it and stores it, again from the start when
// somebody else stored it in between. What change returns as an error ends it.
// It returns the object as stored; without a change nothing is written.
func Modify[T any](ctx context.Context, s *Store, project, name string, change func(*T) error) (*T, error) {
	var err error
	for range tries {
		var obj *T
		if obj, err = Get[T](ctx, s, project, name); err != nil {
			return nil, err
		}
		if err := change(obj); err != nil {
			return nil, err
		}
		if err = s.Update(ctx, any(obj).(estate.Resource)); err == nil {
			return obj, nil
		}
		if fault.KindOf(err) != fault.Conflict {
			return nil, err
		}
	}
	return nil, err
}

// Commit does all edits or none, in one revision. An object may be in it once.
// The error names the object that did not allow it.
func (s *Store) Commit(ctx context.Context, edits ...Edit) error {
	var err error
	for i := range tries {
		var steps []step
		if steps, err = s.prepare(ctx, edits, i > 0); err != nil {
			return err
		}
		t := Txn{}
		for _, st := range steps {
			t.If = append(t.If, st.txn.If...)
			t.Then = append(t.Then, st.txn.Then...)
		}
		if len(t.Then) == 0 && !slices.ContainsFunc(edits, func(e Edit) bool { return e.verb == raw }) {
			return nil
		}
		var revision int64
		revision, err = s.kv.Commit(ctx, t)
		if fault.KindOf(err) == fault.Conflict {
			continue // preparing again finds and names what changed
		}
		if errors.Is(err, fault.NotFound) && i == 0 {
			s.forgetEventLease()
			continue
		}
		if err != nil {
			return fault.KindOf(err).Errorf("store %s: %w", names(edits), err)
		}
		for _, st := range steps {
			if st.object != nil {
				*st.object.Header() = st.head
				st.object.Header().Metadata.Version = revision
			}
		}
		return nil
	}
	return fault.KindOf(err).Errorf("store %s: it kept changing: %w", names(edits), err)
}

// step is an edit worked out against what is stored.
type step struct {
	txn    Txn
	object estate.Resource // gets head and version once it is stored
	head   estate.Head
}

// prepare works out every edit. Unless careful, a new object is not looked for
// first: the commit finds it.
func (s *Store) prepare(ctx context.Context, edits []Edit, careful bool) ([]step, error) {
	seen := map[estate.Ref]bool{}
	var steps []step
	for _, e := range edits {
		if e.verb == raw {
			steps = append(steps, step{txn: e.raw})
			continue
		}
		key, err := keyOf(e.ref)
		if err != nil {
			return nil, err
		}
		if seen[e.ref] {
			return nil, fault.Invalid.Errorf("store %s: it is in the set twice", e.ref)
		}
		seen[e.ref] = true
		var now estate.Resource
		if e.verb != create || careful {
			now, err = s.Load(ctx, e.ref)
			if err != nil && !errors.Is(err, fault.NotFound) {
				return nil, err
			}
		}
		var st step
		switch e.verb {
		case create:
			st, err = s.prepareCreate(ctx, key, e, now)
		case put:
			st, err = s.preparePut(ctx, key, e, now)
		case remove:
			st, err = s.prepareRemove(key, e, now)
		}
		if err != nil {
			return nil, err
		}
		steps = append(steps, st)
	}
	return steps, nil
}

func (s *Store) prepareCreate(ctx context.Context, key string, e Edit, now estate.Resource) (step, error) {
	if now != nil {
		return step{}, fault.Exists.Errorf("create %s: there is one already", e.ref)
	}
	h := *e.object.Header()
	h.APIVersion = estate.APIVersion
	m := &h.Metadata
	m.UID, m.Created, m.Generation, m.Version = e.uid, s.opts.Now().UTC(), 1, 0
	if m.UID == "" {
		m.UID = s.opts.NewUID()
	}
	m.Deleting = time.Time{}
	value, err := encode(e.object, h)
	if err != nil {
		return step{}, err
	}
	w := Write{Key: key, Value: value}
	if h.Kind == "Event" {
		if w.Lease, err = s.eventLease(ctx); err != nil {
			return step{}, err
		}
	}
	return step{Txn{[]Compare{{key, 0}}, []Write{w}}, e.object, h}, nil
}

func (s *Store) preparePut(ctx context.Context, key string, e Edit, now estate.Resource) (step, error) {
	h := *e.object.Header()
	m := &h.Metadata
	switch {
	case now == nil:
		return step{}, fault.NotFound.Errorf("change %s: there is none", e.ref)
	case m.Version == 0:
		return step{}, fault.Invalid.Errorf("change %s: metadata.version is missing; read it first", e.ref)
	case m.Version != now.Header().Metadata.Version:
		return step{}, fault.Conflict.Errorf("change %s: it has changed since version %d; read it again", e.ref, m.Version)
	}
	was := now.Header().Metadata
	h.APIVersion = estate.APIVersion
	m.UID, m.Created, m.Deleting, m.Generation = was.UID, was.Created, was.Deleting, was.Generation
	if !was.Deleting.IsZero() && added(was.Finalizers, m.Finalizers) {
		return step{}, fault.Invalid.Errorf("change %s: it is being deleted and takes no new finalizers", e.ref)
	}
	holds := []Compare{{key, was.Version}}
	if !was.Deleting.IsZero() && len(m.Finalizers) == 0 {
		return step{Txn{holds, []Write{{Key: key, Delete: true}}}, e.object, h}, nil
	}
	old, err := encode(now, *now.Header())
	if err != nil {
		return step{}, err
	}
	value, err := encode(e.object, h)
	if err != nil {
		return step{}, err
	}
	if bytes.Equal(old, value) {
		*e.object.Header() = h // only what the store sets can differ
		return step{txn: Txn{If: holds}}, nil
	}
	same, err := sameSpec(old, value)
	if err != nil {
		return step{}, fault.Internal.Errorf("change %s: %w", e.ref, err)
	}
	if !same {
		m.Generation++
		if value, err = encode(e.object, h); err != nil {
			return step{}, err
		}
	}
	w := Write{Key: key, Value: value}
	if h.Kind == "Event" {
		if w.Lease, err = s.eventLease(ctx); err != nil {
			return step{}, err
		}
	}
	return step{Txn{holds, []Write{w}}, e.object, h}, nil
}

func (s *Store) prepareRemove(key string, e Edit, now estate.Resource) (step, error) {
	if now == nil {
		return step{}, nil
	}
	h := *now.Header()
	m := &h.Metadata
	if e.version != 0 && e.version != m.Version {
		return step{}, fault.Conflict.Errorf("delete %s: it has changed since version %d; read it again", e.ref, e.version)
	}
	holds := []Compare{{key, m.Version}}
	if len(m.Finalizers) == 0 {
		return step{txn: Txn{holds, []Write{{Key: key, Delete: true}}}}, nil
	}
	if !m.Deleting.IsZero() {
		return step{}, nil
	}
	m.Deleting = s.opts.Now().UTC()
	value, err := encode(now, h)
	if err != nil {
		return step{}, err
	}
	return step{txn: Txn{holds, []Write{{Key: key, Value: value}}}}, nil
}

// names lists what a commit is of, for an error.
func names(edits []Edit) string {
	for _, e := range edits {
		if e.verb == raw {
			continue
		}
		if len(edits) > 1 {
			return e.ref.String() + " and others"
		}
		return e.ref.String()
	}
	return "keys"
}
