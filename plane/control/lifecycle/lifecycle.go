// Package lifecycle brings desktops from their blueprints to running machines
// and back, and tells the sessions that wait for them how far they are.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"consort.dev/consort/compose"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/control"
	"consort.dev/consort/plane/store"
)

// finalizer holds a desktop until its sessions and its machine are gone.
const finalizer = "lifecycle"

// Keeper keeps desktops as they are wanted.
type Keeper struct {
	Store         *store.Store
	Presentations []estate.PresentationOffer
	Deliveries    []estate.DeliveryOffer
	Now           func() time.Time
	Log           *slog.Logger
	Events        *control.Recorder // may be nil
}

// Loop returns the keeper's loop over desktops.
func (k *Keeper) Loop() *control.Loop {
	return &control.Loop{
		Name: "lifecycle", Store: k.Store, Log: k.Log, Step: k.step, Concerns: k.concerns,
		Kinds: []estate.Kind{"Desktop", "Machine", "Session", "Blueprint", "Image", "Application", "Volume",
			"Context", "Network", "Grant", "Group", "Hypervisor"},
	}
}

// concerns returns the desktops a change concerns: the one it belongs to, or
// every desktop that may be composed of it.
func (k *Keeper) concerns(ctx context.Context, changed estate.Resource) []estate.Ref {
	project := changed.Header().Metadata.Project
	switch r := changed.(type) {
	case *estate.Desktop:
		return []estate.Ref{r.Ref()}
	case *estate.Session:
		if r.Spec.Desktop == "" {
			return nil // its pool has no seat for it yet
		}
		return []estate.Ref{{Kind: "Desktop", Project: project, Name: r.Spec.Desktop}}
	case *estate.Machine:
		if o := r.Metadata.Owner; o != nil {
			return []estate.Ref{*o}
		}
		return nil
	}
	desktops, _, err := store.List[estate.Desktop](ctx, k.Store, project)
	if err != nil {
		k.Log.Warn("list desktops", "because", changed.Header().Ref().String(), "error", err)
		return nil
	}
	var refs []estate.Ref
	for _, d := range desktops {
		refs = append(refs, d.Ref())
	}
	return refs
}

// view is what one step sees of the estate.
type view struct {
	desktop   *estate.Desktop
	blueprint *estate.Blueprint // nil when it is gone
	machine   *estate.Machine   // nil when there is none
	home      *estate.Volume    // nil when there is none
	sessions  []*estate.Session
	inventory compose.Inventory
	plan      estate.Plan
	reasons   []compose.Reason
}

// planned reports whether the blueprint can be composed now.
func (v *view) planned() bool {
	return v.blueprint != nil && len(compose.Blocked(v.reasons))+len(compose.Waiting(v.reasons)) == 0
}

func (k *Keeper) step(ctx context.Context, ref estate.Ref) (time.Duration, error) {
	v, err := k.look(ctx, ref)
	if v == nil || err != nil {
		return 0, err
	}
	d := v.desktop
	if !d.Metadata.Deleting.IsZero() {
		return 0, k.retire(ctx, v)
	}
	if !slices.Contains(d.Metadata.Finalizers, finalizer) {
		d.Metadata.Finalizers = append(d.Metadata.Finalizers, finalizer)
		return 0, k.Store.Update(ctx, d)
	}
	if err := k.wantLayers(ctx, v); err != nil {
		return 0, err
	}
	if err := k.keepMachine(ctx, v); err != nil {
		return 0, err
	}
	again, err := k.keepSessions(ctx, v)
	if err != nil {
		return 0, err
	}
	return again, k.report(ctx, v)
}

// look reads what concerns the desktop; nil when it is gone.
func (k *Keeper) look(ctx context.Context, ref estate.Ref) (*view, error) {
	v := &view{}
	// Connect makes a session and turns the desktop on in one transaction:
	// whoever reads the session first finds the desktop turned on.
	sessions, _, err := store.List[estate.Session](ctx, k.Store, ref.Project)
	if err != nil {
		return nil, err
	}
	for _, s := range sessions {
		if s.Spec.Desktop == ref.Name {
			v.sessions = append(v.sessions, s)
		}
	}
	if v.desktop, err = store.Get[estate.Desktop](ctx, k.Store, ref.Project, ref.Name); err != nil {
		if errors.Is(err, fault.NotFound) {
			return nil, nil
		}
		return nil, err
	}
	if err := k.takeStock(ctx, ref.Project, &v.inventory); err != nil {
		return nil, err
	}
	blueprints, _, err := store.List[estate.Blueprint](ctx, k.Store, ref.Project)
	if err != nil {
		return nil, err
	}
	for _, b := range blueprints {
		if b.Metadata.Name == v.desktop.Spec.Blueprint {
			v.blueprint = b
		}
	}
	for _, m := range v.inventory.Machines {
		if o := m.Metadata.Owner; o != nil && *o == v.desktop.Ref() {
			v.machine = m
		}
	}
	if v.blueprint == nil {
		v.reasons = []compose.Reason{{Path: "spec.blueprint", Text: "there is no blueprint " + v.desktop.Spec.Blueprint + "; apply it, or name another"}}
		return v, nil
	}
	v.plan, v.reasons = compose.Plan(v.inventory, v.blueprint, v.desktop)
	if v.desktop.Spec.Pool != "" {
		return v, nil
	}
	name := compose.HomeVolume(v.desktop.Spec.Person, v.blueprint.Spec.Context)
	for _, vol := range v.inventory.Volumes {
		if vol.Metadata.Name == name {
			v.home = vol
		}
	}
	return v, nil
}

func (k *Keeper) takeStock(ctx context.Context, project string, in *compose.Inventory) error {
	in.Presentations, in.Deliveries = k.Presentations, k.Deliveries
	for _, err := range []error{
		list(ctx, k.Store, "", &in.Hypervisors), list(ctx, k.Store, "", &in.Groups),
		list(ctx, k.Store, project, &in.Images), list(ctx, k.Store, project, &in.Applications),
		list(ctx, k.Store, project, &in.Contexts), list(ctx, k.Store, project, &in.Networks),
		list(ctx, k.Store, project, &in.Volumes), list(ctx, k.Store, project, &in.Machines),
		list(ctx, k.Store, project, &in.Grants),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

func list[T any](ctx context.Context, s *store.Store, project string, into *[]*T) (err error) {
	*into, _, err = store.List[T](ctx, s, project)
	return err
}

// wantLayers asks for the layers that the blueprint's applications still lack.
func (k *Keeper) wantLayers(ctx context.Context, v *view) error {
	if v.blueprint == nil {
		return nil
	}
	spec := &v.blueprint.Spec
	return control.WantLayers(ctx, k.Store, v.inventory.Images, v.inventory.Applications, spec.Image, spec.Applications)
}

// retire ends what belongs to a desktop that goes. The home stays.
func (k *Keeper) retire(ctx context.Context, v *view) error {
	for _, s := range v.sessions {
		if err := k.endSession(ctx, s, "the desktop was deleted"); err != nil {
			return err
		}
	}
	if v.machine != nil {
		return k.remove(ctx, v, forGood)
	}
	if err := k.release(ctx, v, ""); err != nil {
		return err
	}
	for _, s := range v.sessions {
		if err := k.Store.Delete(ctx, s.Ref(), 0); err != nil {
			return err
		}
	}
	d := v.desktop
	d.Metadata.Finalizers = slices.DeleteFunc(d.Metadata.Finalizers, func(f string) bool { return f == finalizer })
	return k.Store.Update(ctx, d)
}

// report writes the desktop's status from what the step saw.
func (k *Keeper) report(ctx context.Context, v *view) error {
	var was estate.DesktopStatus
	d, err := store.Modify(ctx, k.Store, v.desktop.Metadata.Project, v.desktop.Metadata.Name, func(d *estate.Desktop) error {
		was = d.Status
		s := &d.Status
		s.Plan, s.Next, s.Resets = v.desktop.Status.Plan, nil, v.desktop.Status.Resets
		s.Machine, s.Home, s.Presentation = "", "", ""
		s.Observed = d.Metadata.Generation
		if v.machine != nil {
			s.Machine = v.machine.Metadata.Name
		}
		if v.home != nil {
			s.Home = v.home.Metadata.Name
		}
		if s.Plan != nil {
			s.Presentation = s.Plan.Presentation.Name
		}
		if v.planned() && s.Plan != nil && compose.Most(compose.Diff(*s.Plan, v.plan)) != compose.Nothing {
			s.Next = &v.plan
		}
		s.State, s.Waiting = stateOf(v, d)
		if s.Made.IsZero() && (s.State == estate.DesktopRunning || s.State == estate.DesktopWarm) {
			s.Made = k.Now()
		}
		s.Set(composable(v, k.Now()))
		s.Set(ready(s, k.Now()))
		return nil
	})
	if err != nil {
		return err
	}
	k.became(ctx, d, was.State)
	k.announced(ctx, d, was.Next)
	return nil
}

// stateOf says in a word and in a sentence where the desktop is.
func stateOf(v *view, d *estate.Desktop) (estate.DesktopState, string) {
	m := v.machine
	on := d.Spec.Power == estate.On
	switch {
	case m != nil && !m.Metadata.Deleting.IsZero():
		return estate.DesktopStopping, "waiting for the old machine to go"
	case m != nil && m.Spec.Moving != nil && !m.Spec.Moving.Live:
		return estate.DesktopMoving, fmt.Sprintf("moving from %s to %s (operation %s)", m.Spec.Moving.From, m.Spec.Moving.To, m.Spec.Moving.Operation)
	case d.Free() && v.warm():
		return estate.DesktopWarm, ""
	case m != nil && m.Status.Power == estate.On && on && drawn(m, d.Status.Plan) && m.Own():
		return estate.DesktopRunning, ""
	case m != nil && on:
		return estate.DesktopStarting, startingText(m)
	case m != nil && (m.Status.Power == estate.On || m.Status.Power == estate.Paused):
		return estate.DesktopStopping, "waiting for the guest to shut down"
	case !v.planned() && len(compose.Blocked(v.reasons)) > 0:
		return estate.DesktopBlocked, texts(compose.Blocked(v.reasons))
	case !v.planned():
		return estate.DesktopPreparing, texts(compose.Waiting(v.reasons))
	case on:
		return estate.DesktopStarting, "waiting for a machine"
	}
	return estate.DesktopOff, ""
}

func startingText(m *estate.Machine) string {
	switch {
	case m.Status.Waiting != "":
		return m.Status.Waiting
	case m.Status.Power == estate.Paused:
		return "waiting for the machine to go on"
	case m.Status.Power != estate.On:
		return "waiting for the machine to start"
	case !m.Own() && m.Status.Guest.Desktop:
		return "waiting for the machine to get an identity of its own"
	case !m.Status.Guest.Agent:
		return "waiting for the guest to boot"
	}
	return "waiting for the desktop to be drawn"
}

// drawn reports whether the machine's desktop can be worked on. A guest that
// cannot tell counts as drawn once its screen can be reached.
func drawn(m *estate.Machine, p *estate.Plan) bool {
	if p != nil && p.Guest.Agent && p.Guest.Screen {
		return m.Status.Guest.Desktop
	}
	return m.Status.Display != ""
}

func composable(v *view, now time.Time) estate.Condition {
	c := estate.Condition{Type: "Composable", Status: estate.True, Since: now}
	switch blocked, waiting := compose.Blocked(v.reasons), compose.Waiting(v.reasons); {
	case len(blocked) > 0:
		c.Status, c.Reason, c.Text = estate.False, "Blocked", texts(blocked)
	case len(waiting) > 0:
		c.Status, c.Reason, c.Text = estate.False, "Waiting", texts(waiting)
	default:
		c.Text = texts(compose.Notes(v.reasons))
	}
	return c
}

func ready(s *estate.DesktopStatus, now time.Time) estate.Condition {
	c := estate.Condition{Type: estate.Ready, Status: estate.False, Reason: string(s.State), Text: s.Waiting, Since: now}
	if s.State == estate.DesktopRunning || s.State == estate.DesktopWarm {
		c.Status = estate.True
	}
	return c
}

func texts(rs []compose.Reason) string {
	var all []string
	for _, r := range rs {
		all = append(all, r.Text)
	}
	return strings.Join(all, "; ")
}
