package service

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/control"
)

// launchLimit is how long an agent may take to start an application.
const launchLimit = 20 * time.Second

// launch starts the application of each replica whose machine has come up since
// it was started last. A start that is repeated changes nothing: the guest keeps
// one of each.
func (k *Keeper) launch(ctx context.Context, v *view) {
	var starts sync.WaitGroup
	defer starts.Wait()
	k.tidy(v)
	s := &v.service.Status
	for i := range s.Replicas {
		r := &s.Replicas[i]
		m, rev := v.machines[r.Machine], s.Revision(r.Revision)
		if m == nil || rev == nil || m.Status.Power != estate.On || m.Status.Hypervisor == "" || r.Launched == max(1, m.Status.Starts) {
			continue
		}
		call, ready := v.start(m, rev)
		if !ready || k.rests(v, m) {
			continue
		}
		starts.Go(func() {
			err := k.ask(ctx, m, call)
			k.note(v, m, err)
			if err == nil {
				r.Launched = max(1, m.Status.Starts)
			}
		})
	}
}

// rests reports whether a start has failed so short a time ago that it is not
// tried again yet.
func (k *Keeper) rests(v *view, m *estate.Machine) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	f, failed := k.failed[place{v.service.Ref(), m.Metadata.Name}]
	if failed {
		v.failed[m.Metadata.Name] = f.err
	}
	return failed && v.now.Sub(f.at) < tryAgain
}

// note keeps why a start failed, and logs it when that is news.
func (k *Keeper) note(v *view, m *estate.Machine, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	at := place{v.service.Ref(), m.Metadata.Name}
	old := k.failed[at].err
	if err == nil {
		delete(k.failed, at)
		delete(v.failed, at.machine)
		return
	}
	if k.failed == nil {
		k.failed = map[place]failure{}
	}
	k.failed[at], v.failed[at.machine] = failure{v.now, err}, err
	if old == nil || old.Error() != err.Error() {
		k.Log.Warn("start a replica", "machine", m.Metadata.Name, "error", err)
	}
}

// tidy forgets failures of machines that have gone.
func (k *Keeper) tidy(v *view) {
	k.mu.Lock()
	defer k.mu.Unlock()
	maps.DeleteFunc(k.failed, func(at place, _ failure) bool {
		return at.service == v.service.Ref() && v.machines[at.machine] == nil
	})
}

// start is the call that starts the replica's application, once its layer is
// attached.
func (v *view) start(m *estate.Machine, rev *estate.Revision) (call api.Call, ready bool) {
	i := slices.IndexFunc(v.inventory.Applications, func(a *estate.Application) bool {
		return a.Metadata.Name == rev.Recipe.Applications[0].Name
	})
	j := slices.IndexFunc(rev.Plan.Layers, func(l estate.Layer) bool { return l.Application == rev.Recipe.Applications[0].Name })
	if i < 0 || j < 0 {
		return call, false
	}
	layer := rev.Plan.Layers[j]
	attached := slices.ContainsFunc(m.Status.Layers, func(l estate.LayerState) bool { return l.Digest == layer.Digest && l.Attached })
	return api.Call{Verb: api.CallStart, Start: &api.Start{
		Layer: layer, Command: v.inventory.Applications[i].Spec.Command, User: rev.Plan.Guest.User, Home: rev.Plan.Guest.Home,
	}}, attached
}

// ask makes the call and reads the one line that answers it.
func (k *Keeper) ask(ctx context.Context, m *estate.Machine, call api.Call) error {
	ctx, cancel := context.WithTimeout(ctx, launchLimit)
	defer cancel()
	call.Machine = estate.MachineID(m.Metadata.UID)
	conn, err := k.Dial(ctx, m.Status.Hypervisor, call)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	line, err := bufio.NewReader(io.LimitReader(conn, 64<<10)).ReadBytes('\n')
	var reply api.StartReply
	if err == nil || len(line) > 0 {
		err = json.Unmarshal(line, &reply)
	}
	switch {
	case err != nil:
		return fault.OutcomeUnknown.Errorf("the agent's answer was lost: %w", err)
	case reply.Error != nil:
		return reply.Error
	}
	return nil
}

// wantLayers asks for the layers that the service's applications still lack.
func (k *Keeper) wantLayers(ctx context.Context, v *view) error {
	spec := &v.service.Spec
	return control.WantLayers(ctx, k.Store, v.inventory.Images, v.inventory.Applications, spec.Image, spec.Applications)
}
