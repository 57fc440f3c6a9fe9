package pool

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"slices"
	"strings"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/store"
)

// places is where the keys live that say which sessions of a person wait for a
// seat of a pool or have one. Each change of one is compared with what was
// read, so that what one person asks for happens one after the other.
const places = "/consort/places/"

// Connect returns the session of the person on their seat, or puts them in the
// queue for one: the session says how far that is. Asking again, or again after
// a lost answer, returns the same session while it lasts, and a new one on the
// same seat while that is kept. One that is thrown away is kept for nobody: they
// get another, though it may not be gone yet. made says that the session is new. Another seat
// than the pool allows one person is fault.Denied.
func (k *Keeper) Connect(ctx context.Context, pool estate.Ref, person string, req api.ConnectRequest) (s *estate.Session, made bool, err error) {
	const tries = 20
	for try := 0; ; try++ {
		s, made, err = k.tryConnect(ctx, pool, person, req)
		if !errors.Is(err, fault.Conflict) && !errors.Is(err, fault.Exists) || try >= tries {
			return s, made, err
		}
	}
}

// tryConnect is Connect once; a lost race is fault.Conflict.
func (k *Keeper) tryConnect(ctx context.Context, pool estate.Ref, person string, req api.ConnectRequest) (*estate.Session, bool, error) {
	p, err := store.Get[estate.Pool](ctx, k.Store, pool.Project, pool.Name)
	switch {
	case err != nil:
		return nil, false, err
	case !p.Metadata.Deleting.IsZero():
		return nil, false, fault.Denied.Errorf("connect to %s: it is being deleted", pool)
	case person == "":
		return nil, false, fault.Invalid.Errorf("connect to %s: a seat is for a person; say for whom, or sign in as somebody", pool)
	}
	key := places + strings.Join([]string{pool.Project, pool.Name, person}, "/")
	entry, err := k.Store.KV().Get(ctx, key)
	if err != nil && !errors.Is(err, fault.NotFound) {
		return nil, false, err
	}
	mine, err := k.places(ctx, pool.Project, strings.Fields(string(entry.Value)))
	if err != nil {
		return nil, false, err
	}
	var edits []store.Edit
	s, err := k.session(p, person, req.Presentation)
	if err != nil {
		return nil, false, err
	}
	switch {
	case !req.Another && len(mine) > 0:
		for _, have := range mine {
			if !over(have.session) && have.session.Spec.Presentation == req.Presentation {
				return have.session, false, nil
			}
		}
		first := &mine[0]
		if first.seat == nil {
			return first.session, false, nil // one place in the queue is enough, whatever it is to be seen with
		}
		s.Spec.Desktop, s.Status.Waiting = first.seat.Metadata.Name, "the desktop is being brought up"
		first.seat.Spec.Power = estate.On
		first.seat.Status.Visits++ // changes the seat: it is not taken back behind their back
		edits = append(edits, store.Put(first.seat))
		first.session = s
	case len(mine) >= p.Spec.Limit():
		return nil, false, fault.Denied.Errorf("connect to %s: %s has %d of its seats or waits for them, which is as many as one person may have; end a session first", pool, person, len(mine))
	default:
		mine = append(mine, place{session: s})
	}
	var names []string
	for _, m := range mine {
		names = append(names, m.session.Metadata.Name)
	}
	edits = append(edits, store.Create(s), store.Raw(store.Txn{
		If:   []store.Compare{{Key: key, Revision: entry.Revision}},
		Then: []store.Write{{Key: key, Value: []byte(strings.Join(names, " "))}},
	}))
	if err := k.Store.Commit(ctx, edits...); err != nil {
		return nil, false, err
	}
	return s, true, nil
}

// place is a session that waits for a seat, or the seat with the session that
// got it, which may have ended.
type place struct {
	session *estate.Session
	seat    *estate.Desktop // nil while it waits
}

// places returns what is left of a person's places.
func (k *Keeper) places(ctx context.Context, project string, names []string) ([]place, error) {
	var all []place
	for _, name := range names {
		s, err := store.Get[estate.Session](ctx, k.Store, project, name)
		if errors.Is(err, fault.NotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if s.Spec.Desktop == "" {
			if !over(s) {
				all = append(all, place{session: s})
			}
			continue
		}
		d, err := store.Get[estate.Desktop](ctx, k.Store, project, s.Spec.Desktop)
		if err != nil && !errors.Is(err, fault.NotFound) {
			return nil, err
		}
		if err != nil || !d.Metadata.Deleting.IsZero() || d.Spec.Person != s.Spec.Person {
			continue
		}
		thrown, err := k.thrownAway(ctx, d, s)
		if err != nil {
			return nil, err
		}
		if !thrown {
			all = append(all, place{s, d})
		}
	}
	return all, nil
}

// thrownAway reports whether a seat lasts as long as a session, and has had its
// last: the newest is over, and so are those with other presentations.
func (k *Keeper) thrownAway(ctx context.Context, d *estate.Desktop, newest *estate.Session) (bool, error) {
	if !d.Disposable() || !over(newest) {
		return false, nil
	}
	all, _, err := store.List[estate.Session](ctx, k.Store, d.Metadata.Project)
	return !slices.ContainsFunc(all, func(s *estate.Session) bool { return s.Spec.Desktop == d.Metadata.Name && !over(s) }), err
}

// session returns a new session that waits for a seat.
func (k *Keeper) session(p *estate.Pool, person, presentation string) (*estate.Session, error) {
	name, err := k.newName(p.Metadata.Name)
	if err != nil {
		return nil, err
	}
	owner := p.Ref()
	s := &estate.Session{Spec: estate.SessionSpec{Pool: p.Metadata.Name, Person: person, Presentation: presentation}}
	s.Head = estate.Head{APIVersion: estate.APIVersion, Kind: "Session", Metadata: estate.Metadata{
		Name: name, Project: p.Metadata.Project, Owner: &owner,
	}}
	s.Status.State, s.Status.Waiting = estate.SessionWaiting, "a free seat is being looked for"
	return s, nil
}

// newName returns a name that was never used: of a seat too, so that one which
// is gone is never taken for another.
func (k *Keeper) newName(pool string) (string, error) {
	var b [5]byte
	if _, err := io.ReadFull(k.Random, b[:]); err != nil {
		return "", fault.Internal.Errorf("name a seat: %w", err)
	}
	return strings.TrimRight(pool[:min(len(pool), 50)], "-") + "-" + hex.EncodeToString(b[:]), nil
}
