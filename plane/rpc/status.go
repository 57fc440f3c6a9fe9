package rpc

import (
	"net/http"
	"slices"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// putStatus replaces the status of an object that exists.
func (c *call) putStatus() error {
	given, err := c.givenObject()
	if err != nil {
		return err
	}
	return c.changeStatus(func(stored estate.Resource) (estate.Resource, error) {
		next, err := clone(stored)
		if err != nil {
			return nil, err
		}
		return next, replaceStatus(next, given)
	})
}

// patchStatus changes the fields of the status that a merge patch mentions.
func (c *call) patchStatus() error {
	p, err := c.mergePatch()
	if err != nil {
		return err
	}
	for _, k := range sortedKeys(p) {
		if k != "status" {
			return invalid(c.ref().String(), []estate.Problem{{Path: k, Text: "only the status is written here; write {\"status\": ...}"}})
		}
	}
	return c.changeStatus(func(stored estate.Resource) (estate.Resource, error) {
		return patched(stored, p, replaceStatus)
	})
}

func replaceStatus(next, given estate.Resource) error {
	statusOf(next).Set(statusOf(given))
	return nil
}

// changeStatus writes a status. Rules of the spec are not asked: a status
// tells what is.
func (c *call) changeStatus(next func(stored estate.Resource) (estate.Resource, error)) error {
	ref := c.ref()
	want, err := c.conditions()
	if err != nil {
		return err
	}
	if err := c.allow("status", ref); err != nil {
		return err
	}
	for try := 0; ; try++ {
		stored, err := c.Store.Load(c.r.Context(), ref)
		if err != nil {
			return err
		}
		if err := want.holds(ref, stored); err != nil {
			return err
		}
		r, err := next(stored)
		if err != nil {
			return err
		}
		if c.dryRun() {
			return c.replyObject(http.StatusOK, r)
		}
		err = c.Store.Update(c.r.Context(), r)
		if err == nil {
			return c.replyObject(http.StatusOK, r)
		}
		if fault.KindOf(err) != fault.Conflict || want.version != 0 || try >= 20 {
			return err
		}
	}
}

// letGo takes a finalizer from an object, which goes with its last one.
func (c *call) letGo() error {
	var req api.LetGoRequest
	if err := c.message(&req); err != nil {
		return err
	}
	ref := c.ref()
	if err := c.allow("status", ref); err != nil {
		return err
	}
	if req.Finalizer == "" {
		return invalid(ref.String(), []estate.Problem{{Path: "finalizer", Text: "say whose finalizer goes"}})
	}
	if !c.caller.Admin && req.Finalizer != estate.AgentFinalizer {
		return fault.Denied.Errorf("let go of %s: %s is not yours to take away", ref, req.Finalizer)
	}
	for try := 0; ; try++ {
		r, err := c.Store.Load(c.r.Context(), ref)
		if err != nil {
			return err
		}
		m := &r.Header().Metadata
		m.Finalizers = slices.DeleteFunc(m.Finalizers, func(f string) bool { return f == req.Finalizer })
		err = c.destroyed(r, func() error { return c.Store.Update(c.r.Context(), r) })
		if err == nil {
			return c.reply(http.StatusOK, api.Empty{})
		}
		if fault.KindOf(err) != fault.Conflict || try >= 20 {
			return err
		}
	}
}

// offers serves what the providers of this plane can do.
func (c *call) offers() error { return c.reply(http.StatusOK, c.Offers) }

// me serves the caller as the plane knows it.
func (c *call) me() error {
	me := api.Me{Person: c.caller.Person, Admin: c.caller.Admin, Agent: c.caller.Agent, Groups: c.caller.Groups, Scopes: c.caller.Scopes}
	if me.Person != "" {
		r, err := c.Store.Load(c.r.Context(), estate.Ref{Kind: "Person", Name: me.Person})
		if p, ok := r.(*estate.Person); ok && err == nil {
			me.Title = p.Spec.Title
		}
	}
	return c.reply(http.StatusOK, me)
}
