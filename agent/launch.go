package agent

import (
	"context"
	"slices"
	"time"

	"consort.dev/consort/estate"
)

// mostLaunches is how many starts of applications a machine's status keeps.
const mostLaunches = 32

// launched notes a start of an application and has it told. Of those after one
// start of the machine only the first is sure to be a start: a provider does not
// start again what runs.
func (k *keeper) launched(ctx context.Context, l estate.Launch) {
	m, _ := k.latest()
	have, err := k.agent.Host.Get(ctx, k.id) // what the plane was told may be older
	if err != nil {
		k.agent.Log.Warn("note a start", "machine", m.Metadata.Name, "application", l.Application, "error", err)
		return
	}
	l.At, l.Took = l.At.UTC().Truncate(time.Millisecond), estate.Duration(time.Duration(l.Took).Round(time.Millisecond))
	k.mu.Lock()
	known := slices.Concat(m.Status.Launches, k.launches)
	since := slices.ContainsFunc(known, func(o estate.Launch) bool {
		return o.Application == l.Application && o.Hypervisor == l.Hypervisor && !o.At.Before(have.Started)
	})
	if !since {
		k.launches = newest(append(k.launches, l))
	}
	k.mu.Unlock()
	k.look()
}

// launchesAfter returns the newest starts: those that the plane knows, and what
// came since.
func (k *keeper) launchesAfter(told []estate.Launch) []estate.Launch {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := slices.Clone(told)
	for _, l := range k.launches {
		if !slices.Contains(all, l) {
			all = append(all, l)
		}
	}
	return newest(all)
}

// newest sorts starts, and leaves out the oldest that nobody keeps.
func newest(all []estate.Launch) []estate.Launch {
	slices.SortStableFunc(all, func(a, b estate.Launch) int { return a.At.Compare(b.At) })
	return all[max(0, len(all)-mostLaunches):]
}
