package rpc

import (
	"context"
	"net/http"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// Moves takes machines from one hypervisor to another.
type Moves interface {
	// Begin begins the move of a machine or of the machine of a desktop, or says
	// what stands against it.
	Begin(ctx context.Context, ref estate.Ref, req api.MoveRequest, by string) (*api.MoveReply, error)
	// Drain begins the move of every machine on the hypervisor that can move.
	Drain(ctx context.Context, hypervisor string, req api.MoveRequest, by string) (*api.DrainReply, error)
	// Undrain lets the hypervisor take machines again.
	Undrain(ctx context.Context, hypervisor string) error
	// Abort asks for a move to be undone.
	Abort(ctx context.Context, project, operation string) error
}

// moves returns who moves machines on this plane.
func (c *call) moves() (Moves, error) {
	if c.Moves == nil {
		return nil, fault.Unsupported.Errorf("%s: this plane moves no machines", c.r.URL.Path)
	}
	return c.Moves, nil
}

// operated checks that the caller operates the project of the object in the path.
func (c *call) operated() error {
	ref := c.ref()
	if err := c.allow("get", ref); err != nil {
		return err
	}
	return c.allow("update", estate.Ref{Kind: "Project", Name: ref.Project})
}

// by names the caller for a journal.
func (c *call) by() string {
	if c.caller.Person == "" {
		return "an administrator on the plane's host"
	}
	return c.caller.Person
}

func (c *call) move() error {
	var req api.MoveRequest
	if err := c.message(&req); err != nil {
		return err
	}
	if err := c.operated(); err != nil {
		return err
	}
	m, err := c.moves()
	if err != nil {
		return err
	}
	reply, err := m.Begin(c.r.Context(), c.ref(), req, c.by())
	if err != nil {
		return err
	}
	c.with["to"], c.with["operation"] = reply.To, reply.Operation
	return c.reply(http.StatusOK, reply)
}

func (c *call) drain() error {
	var req api.MoveRequest
	if err := c.message(&req); err != nil {
		return err
	}
	if err := c.allow("update", c.ref()); err != nil {
		return err
	}
	m, err := c.moves()
	if err != nil {
		return err
	}
	reply, err := m.Drain(c.r.Context(), c.ref().Name, req, c.by())
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, reply)
}

func (c *call) undrain() error {
	if err := c.allow("update", c.ref()); err != nil {
		return err
	}
	m, err := c.moves()
	if err == nil {
		err = m.Undrain(c.r.Context(), c.ref().Name)
	}
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, api.Empty{})
}

func (c *call) abort() error {
	if err := c.operated(); err != nil {
		return err
	}
	m, err := c.moves()
	if err == nil {
		err = m.Abort(c.r.Context(), c.ref().Project, c.ref().Name)
	}
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, api.Empty{})
}
