package store

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// root is where objects live; secrets have keys of their own beside it.
const root = "/consort/objects/"

// Secrets is where keys for credentials, tickets and leases of agents begin.
// They are not objects and are never served.
const Secrets = "/consort/secrets/"

// eventLife is how long an Event is kept, at least.
const eventLife = time.Hour

// Options are the parts a Store is given.
type Options struct {
	Now    func() time.Time // the clock; time.Now when nil
	NewUID func() string    // mints UUIDv4; UUID when nil
}

// UUID returns a random UUIDv4.
func UUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the program instead
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// Store keeps objects of every kind over one engine. It is safe for use by
// many goroutines.
type Store struct {
	kv   KV
	opts Options
	hub  *hub

	mu     sync.Mutex
	events struct {
		lease   LeaseID
		granted time.Time
	}
}

// New returns a store over the engine. Close ends both.
func New(kv KV, opts Options) *Store {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.NewUID == nil {
		opts.NewUID = UUID
	}
	return &Store{kv: kv, opts: opts, hub: newHub(kv)}
}

// KV returns the engine, for what is not an object.
func (s *Store) KV() KV { return s.kv }

// Close ends every watch and closes the engine.
func (s *Store) Close() error {
	s.hub.close()
	return s.kv.Close()
}

// Get returns the object, or fault.NotFound.
func Get[T any](ctx context.Context, s *Store, project, name string) (*T, error) {
	r, err := s.Load(ctx, estate.Ref{Kind: estate.KindOf[T]().Kind, Project: project, Name: name})
	if err != nil {
		return nil, err
	}
	return any(r).(*T), nil
}

// List returns every object of the kind in the project, or in all projects
// when it is empty, in the order of their keys, and the revision after which
// a watch begins.
func List[T any](ctx context.Context, s *Store, project string) ([]*T, int64, error) {
	rs, revision, _, err := s.Page(ctx, estate.KindOf[T]().Kind, project, "", 0)
	if err != nil {
		return nil, 0, err
	}
	list := make([]*T, len(rs))
	for i, r := range rs {
		list[i] = any(r).(*T)
	}
	return list, revision, nil
}

// Load returns the object of any kind, or fault.NotFound.
func (s *Store) Load(ctx context.Context, ref estate.Ref) (estate.Resource, error) {
	key, err := keyOf(ref)
	if err != nil {
		return nil, err
	}
	e, err := s.kv.Get(ctx, key)
	switch {
	case errors.Is(err, fault.NotFound):
		return nil, fault.NotFound.Errorf("there is no %s", ref)
	case err != nil:
		return nil, fault.KindOf(err).Errorf("read %s: %w", ref, err)
	}
	return decode(e)
}

// Page returns at most limit objects of the kind (all when 0) that come after
// the cursor, the revision they were read at, and whether there are more. The
// cursor of an object is what Cursor returns; "" begins at the first.
func (s *Store) Page(ctx context.Context, kind estate.Kind, project, after string, limit int) ([]estate.Resource, int64, bool, error) {
	info, ok := estate.KindNamed(string(kind))
	if !ok {
		return nil, 0, false, fault.Invalid.Errorf("%q is not a kind", kind)
	}
	base := root + info.Plural + "/"
	prefix := base
	if project != "" {
		prefix += project + "/"
	}
	if after != "" {
		after = base + after
	}
	page, err := s.kv.List(ctx, prefix, after, limit)
	if err != nil {
		return nil, 0, false, fault.KindOf(err).Errorf("list %s: %w", info.Plural, err)
	}
	rs := make([]estate.Resource, len(page.Entries))
	for i, e := range page.Entries {
		if rs[i], err = decode(e); err != nil {
			return nil, 0, false, err
		}
	}
	return rs, page.Revision, page.More, nil
}

// Cursor returns where in a listing the object stands: Page goes on after it.
func Cursor(ref estate.Ref) string { return projectPart(ref) + "/" + ref.Name }

func projectPart(ref estate.Ref) string {
	if ref.Project == "" {
		return "_" // no name: names have no underscore
	}
	return ref.Project
}

// keyOf returns the key of an object. What is not a name never becomes a key.
func keyOf(ref estate.Ref) (string, error) {
	info, ok := estate.KindNamed(string(ref.Kind))
	switch {
	case !ok:
		return "", fault.Invalid.Errorf("%q is not a kind", ref.Kind)
	case info.Global && ref.Project != "":
		return "", fault.Invalid.Errorf("%s: a %s belongs to no project", ref, info.Kind)
	case !info.Global && estate.NameProblem(ref.Project) != "":
		return "", fault.Invalid.Errorf("%s: project: %s", ref, estate.NameProblem(ref.Project))
	}
	if t := estate.NameProblem(ref.Name); t != "" {
		return "", fault.Invalid.Errorf("%s: %s", ref, t)
	}
	return root + info.Plural + "/" + Cursor(ref), nil
}

// refAt is the inverse of keyOf.
func refAt(key string) (estate.KindInfo, estate.Ref, bool) {
	parts := strings.Split(strings.TrimPrefix(key, root), "/")
	if len(parts) != 3 {
		return estate.KindInfo{}, estate.Ref{}, false
	}
	info, ok := estate.KindNamed(parts[0])
	ref := estate.Ref{Kind: info.Kind, Project: parts[1], Name: parts[2]}
	if info.Global {
		ref.Project = ""
	}
	return info, ref, ok
}

// decode reads an entry leniently: fields of a newer version are passed over.
func decode(e Entry) (estate.Resource, error) {
	info, ref, ok := refAt(e.Key)
	if !ok {
		return nil, fault.Internal.Errorf("read %s: not the key of an object", e.Key)
	}
	r := info.NewNamed(ref.Project, ref.Name)
	if len(e.Value) > 0 {
		if err := json.Unmarshal(e.Value, r); err != nil {
			return nil, fault.Internal.Errorf("read %s: %w", ref, err)
		}
	}
	r.Header().Metadata.Version = e.Revision
	return r, nil
}

// encode writes r under the head h. The version is the entry's own revision,
// so it is not part of the value.
func encode(r estate.Resource, h estate.Head) ([]byte, error) {
	mine := *r.Header()
	defer func() { *r.Header() = mine }()
	h.Metadata.Version = 0
	*r.Header() = h
	value, err := json.Marshal(r)
	if err != nil {
		return nil, fault.Invalid.Errorf("write %s: %w", r.Header().Ref(), err)
	}
	return value, nil
}

// sameSpec reports whether two objects want the same.
func sameSpec(a, b []byte) (bool, error) {
	var x, y struct{ Spec json.RawMessage }
	if err := json.Unmarshal(a, &x); err != nil {
		return false, err
	}
	if err := json.Unmarshal(b, &y); err != nil {
		return false, err
	}
	return bytes.Equal(x.Spec, y.Spec), nil
}

// eventLease returns a lease that has at least eventLife left. One lease
// serves the events of five minutes.
func (s *Store) eventLease(ctx context.Context) (LeaseID, error) {
	const share = 5 * time.Minute
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.opts.Now()
	if s.events.lease != 0 && now.Sub(s.events.granted) < share {
		return s.events.lease, nil
	}
	id, err := s.kv.Lease(ctx, eventLife+share)
	if err != nil {
		return 0, err
	}
	s.events.lease, s.events.granted = id, now
	return id, nil
}

// forgetEventLease makes the next event ask for a new lease.
func (s *Store) forgetEventLease() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events.lease = 0
}

// added reports whether b has a finalizer that a lacks.
func added(a, b []string) bool {
	return slices.ContainsFunc(b, func(f string) bool { return !slices.Contains(a, f) })
}
