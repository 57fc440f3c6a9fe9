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

// trialTime is how long a workload may take.
const trialTime = 5 * time.Minute

// trial has a machine's host measure a workload. It is for administrators, as
// run is: it draws on the machine's screen and takes back what its disks hold.
func (c *call) trial() error {
	var req api.TrialRequest
	if err := c.message(&req); err != nil {
		return err
	}
	ref := c.ref()
	if err := c.allow("update", ref); err != nil {
		return err
	}
	if !c.caller.Admin {
		return fault.Denied.Errorf("measure %s: only an administrator may", ref)
	}
	ctx, cancel := context.WithTimeout(c.r.Context(), trialTime)
	defer cancel()
	m, err := store.Get[estate.Machine](ctx, c.Store, ref.Project, ref.Name)
	if err != nil {
		return err
	}
	if m.Metadata.Owner != nil {
		return fault.Conflict.Errorf("measure %s: it is the machine of %s; make one of its own, as 'consort matrix run' does", ref, m.Metadata.Owner)
	}
	conn, err := c.Calls.Dial(ctx, m.Spec.Hypervisor, api.Call{Verb: api.CallTrial, Machine: estate.MachineID(m.Metadata.UID)})
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	var reply api.TrialReply
	if err = json.NewEncoder(conn).Encode(req); err == nil {
		err = json.NewDecoder(conn).Decode(&reply)
	}
	switch {
	case err != nil:
		return fault.OutcomeUnknown.Errorf("measure %s on %s: the agent's answer was lost: %w", req.Workload, ref, err)
	case reply.Error != nil:
		return reply.Error
	}
	return c.reply(http.StatusOK, reply)
}
