package rpc

import (
	"net/http"
	"slices"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/store"
)

// adopt makes a machine that the hypervisor's agent found an object of ours. It
// keeps the vendor's UUID, so that the agent knows it again.
func (c *call) adopt() error {
	var req api.AdoptRequest
	if err := c.message(&req); err != nil {
		return err
	}
	ctx, on := c.r.Context(), c.ref()
	ref := estate.Ref{Kind: "Machine", Project: req.Project, Name: req.Name}
	if err := c.allow("get", on); err != nil {
		return err
	}
	if err := c.allow("create", ref); err != nil {
		return err
	}
	h, err := store.Get[estate.Hypervisor](ctx, c.Store, "", on.Name)
	if err != nil {
		return err
	}
	m, err := adopted(h, req)
	if err != nil {
		return err
	}
	if req.DryRun {
		return c.replyObject(http.StatusOK, m)
	}
	if err := c.unadopted(m.Metadata.UID); err != nil {
		return err
	}
	if err := c.Store.Commit(ctx, store.CreateAs(m, m.Metadata.UID)); err != nil {
		return err
	}
	return c.replyObject(http.StatusCreated, m)
}

// adopted returns the machine that the request asks for, as it was found.
func adopted(h *estate.Hypervisor, req api.AdoptRequest) (*estate.Machine, error) {
	i := slices.IndexFunc(h.Status.Found, func(f estate.Found) bool { return f.ID == req.ID })
	if i < 0 {
		return nil, fault.NotFound.Errorf("adopt: %s has found no machine %s that is not ours; look at it with: consort describe hypervisor %s", h.Ref(), req.ID, h.Metadata.Name)
	}
	f := h.Status.Found[i]
	switch {
	case f.Obstacle != "":
		return nil, fault.Unsupported.Errorf("adopt %s of %s: %s", f.Name, h.Ref(), f.Obstacle)
	case f.Power == estate.PowerUnknown:
		return nil, fault.Conflict.Errorf("adopt %s of %s: its hypervisor cannot tell whether it runs; nothing is done until it can", f.Name, h.Ref())
	}
	m := &estate.Machine{
		Head: estate.Head{APIVersion: estate.APIVersion, Kind: "Machine", Metadata: estate.Metadata{
			Name: req.Name, Project: req.Project, UID: string(f.ID), Finalizers: []string{estate.AgentFinalizer},
		}},
		Spec: estate.MachineSpec{
			Hypervisor: h.Metadata.Name, Epoch: 1, Power: f.Power, Adopted: true,
			Hardware: estate.Hardware{CPUs: f.CPUs, Memory: f.Memory, GuestType: f.GuestType},
		},
	}
	for _, d := range f.Disks {
		m.Spec.Hardware.Disks = append(m.Spec.Hardware.Disks, estate.Disk{Name: d.Name, Size: d.Size})
	}
	if ps := append(problemsOfName(m), m.Check()...); len(ps) > 0 {
		return nil, invalid(m.Ref().String(), ps)
	}
	return m, nil
}

func problemsOfName(r estate.Resource) []estate.Problem {
	if text := estate.NameProblem(r.Header().Metadata.Name); text != "" {
		return []estate.Problem{{Path: "name", Text: text}}
	}
	return nil
}

// unadopted checks that no machine has the uid already: the found list may be
// older than its adoption.
func (c *call) unadopted(uid string) error {
	all, _, err := store.List[estate.Machine](c.r.Context(), c.Store, "")
	if err != nil {
		return err
	}
	for _, m := range all {
		if m.Metadata.UID == uid {
			return fault.Exists.Errorf("adopt: %s is that machine already", m.Ref())
		}
	}
	return nil
}
