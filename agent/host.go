package agent

import (
	"context"
	"errors"
	"sync"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

const (
	// aliveEvery is how often the agent tells that it lives, well within the lease.
	aliveEvery = 3 * time.Second
	// againAfter is how soon it tries again after a failure; each further one doubles it.
	againAfter = 100 * time.Millisecond
	// describeEvery is how often the host is described anew when no machine
	// comes or goes.
	describeEvery = 30 * time.Second
)

// stayJoined joins, keeps telling that it lives, and tells what the host has
// left whenever that may have changed.
func (a *Agent) stayJoined(ctx context.Context) {
	lease := ""
	knows := sync.OnceFunc(func() { close(a.joined) })
	var described time.Time
	for failures := 0; ctx.Err() == nil; {
		err := a.keepLease(ctx, &lease)
		if err == nil {
			knows()
		}
		if err == nil && (described.IsZero() || a.Now().Sub(described) >= describeEvery) {
			if err = a.report(ctx, time.Time{}); err == nil {
				described = a.Now()
			}
		}
		next := aliveEvery
		switch {
		case err == nil:
			failures = 0
		case ctx.Err() == nil:
			a.Log.Warn("keep in touch with the plane", "error", err)
			next = min(againAfter<<min(failures, 6), aliveEvery)
			failures++
		}
		select {
		case <-a.changed:
			described = time.Time{}
		case <-time.After(next):
		case <-ctx.Done():
		}
	}
}

// keepLease renews the lease, or joins where there is none; after a failure
// there is none.
func (a *Agent) keepLease(ctx context.Context, lease *string) (err error) {
	if *lease != "" {
		if err = a.Plane.Alive(ctx, a.Hypervisor, *lease); err != nil {
			*lease = ""
		}
		return err
	}
	if *lease, err = a.join(ctx); err != nil {
		*lease = ""
		return err
	}
	a.Log.Info("joined the plane", "hypervisor", a.Hypervisor)
	return nil
}

// join takes the lease and describes the host: with both done it has joined.
func (a *Agent) join(ctx context.Context) (lease string, err error) {
	old, err := api.Get[estate.Hypervisor](ctx, a.Plane, "", a.Hypervisor)
	switch {
	case errors.Is(err, fault.NotFound):
		h := &estate.Hypervisor{
			Head: estate.Head{APIVersion: estate.APIVersion, Kind: "Hypervisor", Metadata: estate.Metadata{Name: a.Hypervisor, Labels: a.Labels}},
			Spec: estate.HypervisorSpec{Provider: a.Provider, Endpoint: a.Endpoint},
		}
		if err := a.Plane.Put(ctx, h, api.Write{}); err != nil {
			return "", err
		}
	case err != nil:
		return "", err
	case old.Spec.Provider != a.Provider:
		return "", fault.Conflict.Errorf("hypervisor %s is driven by %s, not by %s: join under another name", a.Hypervisor, old.Spec.Provider, a.Provider)
	}
	reply, err := a.Plane.Join(ctx, a.Hypervisor)
	if err != nil {
		return "", err
	}
	return reply.Lease, a.report(ctx, a.Now())
}

// report tells the plane how the host is; what it knows already is not written.
// joined is when the agent joined, or zero when that was told.
func (a *Agent) report(ctx context.Context, joined time.Time) error {
	status, err := a.describe(ctx)
	if err != nil {
		return err
	}
	_, err = api.ModifyStatus(ctx, a.Plane, "", a.Hypervisor, func(h *estate.Hypervisor) error {
		status.Progress, status.State, status.Seen = h.Status.Progress, estate.HypervisorReady, h.Status.Seen
		if !joined.IsZero() {
			status.Seen = joined
		}
		if h.Spec.Drain {
			status.State = estate.HypervisorDraining
		}
		status.Set(estate.Condition{Type: estate.Ready, Status: estate.True, Text: "its agent answers", Since: a.Now()})
		h.Status = status
		return nil
	})
	return err
}

// describe returns the host's status as it is now.
func (a *Agent) describe(ctx context.Context) (s estate.HypervisorStatus, err error) {
	desc, err := a.Host.Describe(ctx)
	if err != nil {
		return s, err
	}
	held, err := a.Host.List(ctx)
	if err != nil {
		return s, err
	}
	templates, err := a.heldTemplates(ctx)
	if err != nil {
		return s, err
	}
	found, err := a.survey(ctx)
	if err != nil {
		return s, err
	}
	return estate.HypervisorStatus{
		Fetching: a.content.fetcher.fetching(),
		Product:  desc.Product, Accelerator: desc.Accelerator, Because: desc.Because, GuestTypes: desc.GuestTypes, Found: found,
		Capacity: desc.Capacity, Free: free(desc.Capacity, held, templates), Capabilities: a.capabilities(desc.Capabilities),
	}, nil
}

// free is what is left when every machine has all that it was promised, those
// that are off included. A template's memory is held once, in memory and on disk.
func free(have estate.Capacity, held []driver.Machine, templates []driver.Template) estate.Capacity {
	for _, t := range templates {
		have.Memory -= t.Def.Memory
		have.Disk -= estate.Bytes(t.Size)
	}
	for _, m := range held {
		have.Memory -= m.Def.Memory
		for _, d := range m.Def.Disks {
			if d.Base != nil {
				have.Disk -= max(d.Size, d.Base.Size)
			}
		}
	}
	have.Memory, have.Disk = max(0, have.Memory), max(0, have.Disk)
	return have
}

// machinesChanged has the host described anew, soon.
func (a *Agent) machinesChanged() {
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

// capabilities are those of the hypervisor; a network takes the host's help, and
// what keeps its machines apart is the host's alone.
func (a *Agent) capabilities(declared []estate.CapabilityReport) []estate.CapabilityReport {
	var all []estate.CapabilityReport
	for _, c := range declared {
		switch {
		case c.Name == estate.CanFilter || c.Name == estate.CanKeepApart:
			continue
		case c.Name != estate.CanNetwork:
			all = append(all, c)
			continue
		case c.Has && c.Value != estate.NetworkByName && a.Network == nil:
			c.Has, c.Reason = false, a.NoNetwork
		}
		all = append(all, c, keepsApart(c), filters(c))
	}
	return all
}

// keepsApart says whether networks joined in this way let through what a context
// says and nothing else.
func keepsApart(n estate.CapabilityReport) estate.CapabilityReport {
	c := estate.CapabilityReport{Name: estate.CanKeepApart, GuestType: n.GuestType, Has: n.Has, Reason: n.Reason, Evidence: n.Evidence}
	if n.Has && n.Value == estate.NetworkByName {
		c.Has, c.Reason = false, "its networks are the vendor's, and who made them decides what they let through"
	}
	return c
}

// filters says whether each card is held to its own addresses.
func filters(n estate.CapabilityReport) estate.CapabilityReport {
	c := keepsApart(n)
	c.Name = estate.CanFilter
	if c.Has && n.Value != estate.NetworkByTap {
		c.Has, c.Reason = false, "machines of one network share a port of ours, so one can pass for another"
	}
	return c
}
