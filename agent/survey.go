package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor/driver"
)

// mostFound bounds how many machines of others are told to the plane.
const mostFound = 500

// watchAgain is how long a host whose events broke off is left alone.
const watchAgain = 5 * time.Second

// survey returns the machines on the host that are not ours. They are shown,
// and never touched until somebody adopts them.
func (a *Agent) survey(ctx context.Context) ([]estate.Found, error) {
	if !a.Host.Can(estate.CanSurvey).Has {
		return nil, nil
	}
	found, err := a.Host.Survey(ctx)
	return found[:min(len(found), mostFound)], err
}

// heed looks again at machines that the host says have changed, until ctx ends.
// Events are hints: what is missed is found by the next look all the same.
func (a *Agent) heed(ctx context.Context) {
	if !a.Host.Can(estate.CanWatch).Has {
		return
	}
	for ctx.Err() == nil {
		err := a.Host.Watch(ctx, func(id estate.MachineID) {
			if k, ours := a.running(id); ours {
				k.look()
				return
			}
			a.machinesChanged()
		})
		if ctx.Err() != nil {
			return
		}
		a.Log.Warn("watch the host's machines; listing goes on", "error", err)
		select {
		case <-time.After(watchAgain):
		case <-ctx.Done():
		}
	}
}

// drifted is the condition of a machine that somebody changed behind our back.
const drifted = "Drifted"

// drift says in one sentence how a machine differs from what is wanted, or "".
// It is told and not undone: whoever changed it may have had a reason.
func drift(m *estate.Machine, have driver.Machine) string {
	if len(have.Def.Disks) == 0 {
		return "" // it is not made yet
	}
	var found []string
	want := m.Spec.Hardware
	if have.Def.CPUs != want.CPUs {
		found = append(found, fmt.Sprintf("it has %d CPUs where %d are wanted", have.Def.CPUs, want.CPUs))
	}
	if have.Def.Memory != want.Memory {
		found = append(found, fmt.Sprintf("it has %s of memory where %s is wanted", have.Def.Memory, want.Memory))
	}
	var has, wants []string
	for _, d := range have.Def.Disks {
		has = append(has, d.Name)
	}
	for _, d := range want.Disks {
		wants = append(wants, d.Name)
	}
	if !slices.Equal(has, wants) {
		found = append(found, fmt.Sprintf("it has the disks %s where %s are wanted", strings.Join(has, ", "), strings.Join(wants, ", ")))
	}
	if len(found) == 0 {
		return ""
	}
	return strings.Join(found, "; ") + ": change it back on its hypervisor, or change what is wanted"
}

// tellDrift sets or clears the condition.
func (k *keeper) tellDrift(s *estate.MachineStatus, text string) {
	c := estate.Condition{Type: drifted, Status: estate.False, Since: k.agent.Now()}
	if text != "" {
		c.Status, c.Text = estate.True, text
	} else if s.Get(drifted).Status == estate.Unknown {
		return // it never did
	}
	s.Set(c)
}
