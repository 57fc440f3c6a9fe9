package rpc

import (
	"context"
	"net/http"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/store"
)

// Pools gives seats of pools to persons.
type Pools interface {
	// Connect returns the session of a person who wants a seat, and whether it
	// was made: one that goes on is returned again.
	Connect(ctx context.Context, pool estate.Ref, person string, req api.ConnectRequest) (s *estate.Session, made bool, err error)
}

// seated returns for whom the caller wants a seat.
func (c *call) seated(person string) (string, error) {
	switch {
	case person == "" || person == c.caller.Person:
		return c.caller.Person, nil
	case !c.caller.Admin:
		return "", fault.Denied.Errorf("connect %s to %s: only administrators connect somebody else", person, c.ref())
	}
	_, err := store.Get[estate.Person](c.r.Context(), c.Store, "", person)
	return person, err
}

// connectPool gives the caller a session on a seat, or a place in the queue.
func (c *call) connectPool() error {
	var req api.ConnectRequest
	if err := c.message(&req); err != nil {
		return err
	}
	if err := c.allow("connect", c.ref()); err != nil {
		return err
	}
	if err := c.presentation(req.Presentation); err != nil {
		return err
	}
	if c.Pools == nil {
		return fault.Unsupported.Errorf("%s: this plane keeps no pools", c.r.URL.Path)
	}
	person, err := c.seated(req.Person)
	if err != nil {
		return err
	}
	s, made, err := c.Pools.Connect(c.r.Context(), c.ref(), person, req)
	if err != nil {
		return err
	}
	c.with["session"], c.with["person"] = s.Metadata.Name, person
	if made {
		return c.replyObject(http.StatusCreated, s)
	}
	return c.replyObject(http.StatusOK, s)
}
