package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/bench/picture"
	"consort.dev/consort/estate"
)

// visit is one person's Connect: when each thing had happened, since the click.
type visit struct {
	ready, frame, own, network time.Duration
	warm                       bool // the seat was made before the person came
	place                      int  // in the queue; 0 when they never waited in it
}

// visit presses Connect, looks at the first frame, stays, and leaves.
func (p *plane) visit(ctx context.Context, pool, who string, stay time.Duration) (*visit, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	began := time.Now()
	s, err := p.client.ConnectPool(ctx, project, pool, api.ConnectRequest{Person: who})
	if err != nil {
		return nil, err
	}
	v := &visit{}
	if s, err = p.await(ctx, s, v); err != nil {
		return nil, err
	}
	v.ready = time.Since(began)
	desktop, err := api.Get[estate.Desktop](ctx, p.client, project, s.Spec.Desktop)
	if err != nil {
		return nil, err
	}
	made := desktop.Status.Made
	v.warm = !made.IsZero() && made.Before(s.Metadata.Created)
	var inside sync.WaitGroup
	var unreached error
	if !v.warm { // one that was ready has its identity and address already
		inside.Go(func() { unreached = p.awaitInside(ctx, s.Status.Machine, began, v) })
	}
	if err := p.look(ctx, s); err != nil {
		return nil, err
	}
	v.frame = time.Since(began)
	inside.Wait()
	if unreached != nil {
		return nil, unreached
	}
	pause(ctx, stay)
	return v, p.client.Delete(ctx, s.Ref(), api.Write{})
}

// renew throws a seat away as the portal does, by ending its session and asking
// for another, and looks at the first frame of that.
func (p *plane) renew(ctx context.Context, s *estate.Session) (*estate.Session, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	if err := p.end(ctx, s); err != nil {
		return nil, err
	}
	fresh, err := p.client.ConnectPool(ctx, project, s.Spec.Pool, api.ConnectRequest{Person: s.Spec.Person})
	if err != nil {
		return nil, err
	}
	if fresh, err = p.await(ctx, fresh, new(visit)); err != nil {
		return nil, err
	}
	return fresh, p.look(ctx, fresh)
}

// end ends a session as its person does.
func (p *plane) end(ctx context.Context, s *estate.Session) error {
	_, err := api.Modify(ctx, p.client, project, s.Metadata.Name, func(s *estate.Session) error { s.Spec.End = true; return nil })
	return err
}

// await follows the session until a ticket can be asked for.
func (p *plane) await(ctx context.Context, asked *estate.Session, v *visit) (*estate.Session, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	for e := range api.Watch[estate.Session](ctx, p.client, project) {
		switch {
		case e.Type == api.Ended:
			return nil, e.Err
		case e.Type != api.Is || e.Object.Metadata.Name != asked.Metadata.Name:
			continue
		}
		if q := e.Object.Status.Queue; q != nil {
			v.place = max(v.place, q.Place)
		}
		switch st := e.Object.Status; st.State {
		case estate.SessionReady:
			return e.Object, nil
		case estate.SessionEnded:
			return nil, fmt.Errorf("the session of %s ended: %s", asked.Spec.Person, st.Because)
		}
	}
	return nil, ctx.Err()
}

// awaitInside notes when the machine has its own identity and an address.
func (p *plane) awaitInside(ctx context.Context, machine string, began time.Time, v *visit) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	for e := range api.Watch[estate.Machine](ctx, p.client, project) {
		if e.Type == api.Ended {
			return e.Err
		}
		if e.Type != api.Is || e.Object.Metadata.Name != machine {
			continue
		}
		g, now := e.Object.Status.Guest, time.Since(began)
		if g.Own && v.own == 0 {
			v.own = now
		}
		if len(g.Addresses) > 0 && v.network == 0 {
			v.network = now
		}
		if v.own > 0 && v.network > 0 {
			return nil
		}
	}
	return ctx.Err()
}

// look opens the session as the portal does and reads one whole picture, which
// must show the desktop.
func (p *plane) look(ctx context.Context, s *estate.Session) error {
	t, err := p.client.Ticket(ctx, project, s.Metadata.Name, false)
	if err != nil {
		return err
	}
	conn, err := p.client.Tunnel(ctx, t.Ticket)
	if err != nil {
		return err
	}
	defer conn.Close()
	return picture.FirstFrame(conn)
}
