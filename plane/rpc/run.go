package rpc

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/store"
)

// runTime is how long a command in a guest may take.
const runTime = 10 * time.Minute

// run runs a command in a machine's guest. It is for administrators: whoever
// may do it is the guest's root.
func (c *call) run() error {
	var req api.RunRequest
	if err := c.message(&req); err != nil {
		return err
	}
	ref := c.ref()
	// A token that only reads runs nothing.
	if err := c.allow("update", ref); err != nil {
		return err
	}
	if !c.caller.Admin {
		return fault.Denied.Errorf("run in %s: only an administrator may", ref)
	}
	if len(req.Args) == 0 || req.Args[0] == "" {
		return invalid(ref.String(), []estate.Problem{{Path: "args", Text: "name a program to run"}})
	}
	ctx, cancel := context.WithTimeout(c.r.Context(), runTime)
	defer cancel()
	m, err := store.Get[estate.Machine](ctx, c.Store, ref.Project, ref.Name)
	if err != nil {
		return err
	}
	conn, err := c.Calls.Dial(ctx, m.Spec.Hypervisor, api.Call{Verb: api.CallRun, Machine: estate.MachineID(m.Metadata.UID)})
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	var reply api.RunReply
	if err = json.NewEncoder(conn).Encode(req); err == nil {
		err = json.NewDecoder(conn).Decode(&reply)
	}
	switch {
	case err != nil:
		return fault.OutcomeUnknown.Errorf("run %s in %s: the agent's answer was lost, and it may have run: %w", req.Args[0], ref, err)
	case reply.Error != nil:
		return reply.Error
	}
	return c.reply(http.StatusOK, reply)
}
