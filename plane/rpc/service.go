package rpc

import (
	"net/http"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/store"
)

// decided changes a decision for whoever may change what it is about.
func (c *call) decided(change func(d *estate.Decision, who string) error) error {
	var req api.Empty
	if err := c.message(&req); err != nil {
		return err
	}
	ref := c.ref()
	if err := c.allow("get", ref); err != nil {
		return err
	}
	d, err := store.Modify(c.r.Context(), c.Store, ref.Project, ref.Name, func(d *estate.Decision) error {
		if err := c.allow("update", d.Spec.On); err != nil {
			return err
		}
		return change(d, c.caller.Name())
	})
	if err != nil {
		return err
	}
	return c.replyObject(http.StatusOK, d)
}

// approve agrees to a decision.
func (c *call) approve() error {
	return c.decided(func(d *estate.Decision, who string) error {
		if d.Status.State != estate.Proposed {
			return fault.Conflict.Errorf("approve %s: it is %s; only one that is proposed can be agreed to", c.ref(), d.Status.State)
		}
		d.Status.State, d.Status.Approved, d.Status.Waiting = estate.Approved, who, ""
		return nil
	})
}

// undo asks for a decision to be taken back.
func (c *call) undo() error {
	return c.decided(func(d *estate.Decision, who string) error {
		switch d.Status.State {
		case estate.Proposed, estate.Approved:
			return fault.Conflict.Errorf("undo %s: it was not carried out yet", c.ref())
		case estate.Doing, estate.Done:
			d.Status.Undo = who
			return nil
		}
		return fault.Conflict.Errorf("undo %s: it is %s, and there is nothing to take back", c.ref(), d.Status.State)
	})
}

// undoRollout writes an earlier revision's recipe into the spec of a service.
func (c *call) undoRollout() error {
	var req api.UndoRequest
	if err := c.message(&req); err != nil {
		return err
	}
	ref := c.ref()
	if err := c.allow("update", ref); err != nil {
		return err
	}
	s, err := store.Modify(c.r.Context(), c.Store, ref.Project, ref.Name, func(s *estate.Service) error {
		to := s.Status.Revision(req.Revision)
		if req.Revision == 0 {
			to = earlier(&s.Status)
		}
		if to == nil {
			return fault.NotFound.Errorf("undo the rollout of %s: there is no earlier revision; see consort rollout history %s", ref, ref.Name)
		}
		s.Spec.Image, s.Spec.Applications, s.Spec.Size, s.Spec.Port = to.Recipe.Image, to.Recipe.Applications, to.Recipe.Size, to.Recipe.Port
		return nil
	})
	if err != nil {
		return err
	}
	return c.replyObject(http.StatusOK, s)
}

// earlier is the last revision before the newest that was not refused, or nil.
func earlier(s *estate.ServiceStatus) *estate.Revision {
	for i := len(s.Revisions) - 2; i >= 0; i-- {
		if !s.Revisions[i].Refused {
			return &s.Revisions[i]
		}
	}
	return nil
}
