// Package level judges what persons get from the applications on their desktops,
// and has a desktop moved where that breaks a level.
package level

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/decide"
	"consort.dev/consort/decide/desk"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/control"
	"consort.dev/consort/plane/slo"
	"consort.dev/consort/plane/store"
)

// Moves takes desktops from one hypervisor to another.
type Moves interface {
	// Begin begins a move, or with a dry run says what stands against it.
	Begin(ctx context.Context, ref estate.Ref, req api.MoveRequest, by string) (*api.MoveReply, error)
}

// Keeper keeps the levels of desktops' applications.
type Keeper struct {
	Store  *store.Store
	Moves  Moves
	Now    func() time.Time
	Log    *slog.Logger
	Events *control.Recorder // may be nil
	// Every is how often a desktop is looked at that breaks a level or about which
	// something was decided, and a level to say how it stands; 30 s when 0.
	Every time.Duration

	decidedOn sync.Map // desktops about which something was decided, by their Ref
}

// again is how long the same advice is not given again, and how long one that
// could not be carried out is not tried again.
const again = 10 * time.Minute

func (k *Keeper) every() time.Duration { return cmp.Or(k.Every, 30*time.Second) }

// Loop returns the keeper's loop over desktops and levels.
func (k *Keeper) Loop() *control.Loop {
	return &control.Loop{
		Name: "level", Store: k.Store, Log: k.Log, Step: k.step,
		Workers: 1, // so that no two desktops of one host are moved at a time
		Kinds:   []estate.Kind{"Desktop", "Machine", "Decision", "ServiceLevel"},
		Concerns: func(_ context.Context, r estate.Resource) []estate.Ref {
			switch r := r.(type) {
			case *estate.Desktop, *estate.ServiceLevel:
				return []estate.Ref{r.Header().Ref()}
			case *estate.Machine:
				if o := r.Metadata.Owner; o != nil && o.Kind == "Desktop" && len(r.Status.Launches) > 0 {
					return []estate.Ref{*o}
				}
			case *estate.Decision:
				if r.Spec.On.Kind == "Desktop" {
					k.decidedOn.Store(r.Spec.On, true)
					return []estate.Ref{r.Spec.On}
				}
			}
			return nil
		},
	}
}

func (k *Keeper) step(ctx context.Context, ref estate.Ref) (time.Duration, error) {
	if ref.Kind == "ServiceLevel" {
		return k.stand(ctx, ref)
	}
	v, err := k.look(ctx, ref)
	if v == nil || err != nil {
		return 0, err
	}
	if err := k.pursue(ctx, v); err != nil {
		return 0, err
	}
	return k.every(), k.judge(ctx, v)
}

// view is a desktop with everything that is known of how its applications start.
type view struct {
	desktop   *estate.Desktop
	machine   *estate.Machine
	levels    []*estate.ServiceLevel // of its applications
	decisions []*estate.Decision     // about it, the oldest first
	under     map[string]bool        // hypervisors that a desktop leaves or goes to by a decision that is being carried out
	machines  []*estate.Machine      // of its project
	hosts     []*estate.Hypervisor
	inUse     bool
}

// look reads what concerns the desktop; nil when there is nothing to judge. What
// is read of others is read only where the desktop breaks a level, or something
// was decided about it: a thousand desktops start in one morning.
func (k *Keeper) look(ctx context.Context, ref estate.Ref) (*view, error) {
	d, err := store.Get[estate.Desktop](ctx, k.Store, ref.Project, ref.Name)
	if errors.Is(err, fault.NotFound) || err == nil && (!d.Metadata.Deleting.IsZero() || d.Status.Machine == "") {
		k.decidedOn.Delete(ref)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	v := &view{desktop: d, under: map[string]bool{}}
	v.machine, err = store.Get[estate.Machine](ctx, k.Store, ref.Project, d.Status.Machine)
	_, decided := k.decidedOn.Load(ref)
	if errors.Is(err, fault.NotFound) || err == nil && len(v.machine.Status.Launches) == 0 && !decided {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	levels, _, err := store.List[estate.ServiceLevel](ctx, k.Store, ref.Project)
	if err != nil {
		return nil, err
	}
	for _, l := range levels {
		used := slices.ContainsFunc(v.machine.Spec.Layers, func(y estate.Layer) bool { return y.Application == l.Spec.Application })
		if l.Spec.Start != nil && l.Metadata.Deleting.IsZero() && used {
			v.levels = append(v.levels, l)
		}
	}
	broken := slices.ContainsFunc(v.levels, func(l *estate.ServiceLevel) bool {
		return desk.Broken(v.policy(l), v.measured(l, k.Now().UTC()))
	})
	if !decided && !broken {
		return nil, nil
	}
	if err := k.decided(ctx, v); err != nil {
		return nil, err
	}
	return v, k.fill(ctx, v)
}

// decided reads what was decided about the desktop and, so that one act at a time
// is done to a host, what is being carried out about others.
func (k *Keeper) decided(ctx context.Context, v *view) error {
	all, _, err := store.List[estate.Decision](ctx, k.Store, "")
	if err != nil {
		return err
	}
	for _, d := range all {
		if d.Spec.On == v.desktop.Ref() && d.Metadata.Deleting.IsZero() {
			v.decisions = append(v.decisions, d)
		} else if d.Spec.On.Kind == "Desktop" && (d.Status.State == estate.Doing || d.Status.State == estate.Approved) {
			v.under[d.Spec.Source], v.under[d.Spec.Target] = true, true
		}
	}
	slices.SortFunc(v.decisions, func(a, b *estate.Decision) int { return a.Spec.At.Compare(b.Spec.At) })
	return nil
}

// fill reads what is needed to judge.
func (k *Keeper) fill(ctx context.Context, v *view) (err error) {
	ref := v.desktop.Ref()
	if v.machines, _, err = store.List[estate.Machine](ctx, k.Store, ref.Project); err != nil {
		return err
	}
	if v.hosts, _, err = store.List[estate.Hypervisor](ctx, k.Store, ""); err != nil {
		return err
	}
	slices.SortFunc(v.hosts, func(a, b *estate.Hypervisor) int { return cmp.Compare(a.Metadata.Name, b.Metadata.Name) })
	sessions, _, err := store.List[estate.Session](ctx, k.Store, ref.Project)
	if err != nil {
		return err
	}
	v.inUse = slices.ContainsFunc(sessions, func(s *estate.Session) bool {
		return s.Spec.Desktop == ref.Name && s.Status.State != estate.SessionEnded
	})
	return nil
}

// policy is what decide is told of a level.
func (v *view) policy(l *estate.ServiceLevel) desk.Policy {
	return desk.Policy{
		Application: l.Spec.Application, Bound: time.Duration(l.Spec.Start.Within), Share: l.Spec.Target, Blueprint: v.desktop.Spec.Blueprint,
		Modes: []decide.Mode{decide.Mode(cmp.Or(l.Spec.Mode, estate.Recommend))},
	}
}

// measured is how the application of a level starts on the desktop and elsewhere.
func (v *view) measured(l *estate.ServiceLevel, now time.Time) desk.Measured {
	here := v.machine.Spec.Hypervisor
	m := desk.Measured{At: now, Here: here, InUse: v.inUse, Past: v.past()}
	var came time.Time // what was measured here before it left does not count
	for _, p := range m.Past {
		came = p.At
	}
	starts := map[string][]desk.Start{}
	for _, x := range v.machine.Status.Launches {
		if x.Application == l.Spec.Application && x.Hypervisor == here && x.At.After(came) {
			m.Starts = append(m.Starts, desk.Start{At: x.At, Took: time.Duration(x.Took)})
		}
	}
	for _, one := range v.machines {
		for _, x := range one.Status.Launches {
			if x.Application == l.Spec.Application && one.Metadata.UID != v.machine.Metadata.UID {
				starts[x.Hypervisor] = append(starts[x.Hypervisor], desk.Start{At: x.At, Took: time.Duration(x.Took)})
			}
		}
	}
	for _, h := range v.hosts {
		name := h.Metadata.Name
		all := starts[name]
		slices.SortFunc(all, func(a, b desk.Start) int { return a.At.Compare(b.At) })
		m.Hosts = append(m.Hosts, desk.Host{Name: name, Starts: all, Busy: v.under[name]})
	}
	return m
}

// past are the decisions about the desktop that were carried out, or tried.
func (v *view) past() []desk.Past {
	var all []desk.Past
	for _, d := range v.decisions {
		st := &d.Status
		if (st.State != estate.Done && st.State != estate.Undone) || st.Ended.IsZero() {
			continue
		}
		p := desk.Past{At: st.Ended, From: d.Spec.Source, To: d.Spec.Target}
		if st.Outcome != nil {
			p.Judged, p.Met = true, st.Outcome.Met
		}
		all = append(all, p)
		if st.State == estate.Undone { // it went back, and that was no remedy either
			all = append(all, desk.Past{At: st.Ended, From: d.Spec.Target, To: d.Spec.Source, Judged: true})
		}
	}
	return all
}

// stand says how a level stands: by the starts of its window that machines
// still know.
func (k *Keeper) stand(ctx context.Context, ref estate.Ref) (time.Duration, error) {
	l, err := store.Get[estate.ServiceLevel](ctx, k.Store, ref.Project, ref.Name)
	if errors.Is(err, fault.NotFound) || err == nil && (l.Spec.Start == nil || !l.Metadata.Deleting.IsZero()) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	machines, _, err := store.List[estate.Machine](ctx, k.Store, ref.Project)
	if err != nil {
		return 0, err
	}
	now := k.Now().UTC()
	s := count(l, machines, now)
	was := l.Status
	if s.State == was.State && s.Good == was.Good && s.Total == was.Total {
		return k.every(), nil
	}
	_, err = store.Modify(ctx, k.Store, ref.Project, ref.Name, func(l *estate.ServiceLevel) error {
		l.Status.State, l.Status.Good, l.Status.Total, l.Status.Left, l.Status.Measured = s.State, s.Good, s.Total, s.Left, now
		return nil
	})
	return k.every(), err
}

// count counts the starts of a level's application in its window.
func count(l *estate.ServiceLevel, machines []*estate.Machine, now time.Time) (s estate.ServiceLevelStatus) {
	zone, err := time.LoadLocation(l.Spec.Window.TimeZone)
	if err != nil {
		zone = time.UTC
	}
	from, end := slo.Window(l.Spec.Window, now, zone)
	for _, m := range machines {
		for _, x := range m.Status.Launches {
			if x.Application != l.Spec.Application || x.At.Before(from) || !x.At.Before(end) {
				continue
			}
			s.Total++
			if x.Took <= l.Spec.Start.Within {
				s.Good++
			}
		}
	}
	bad := s.Total - s.Good
	s.Left = s.Total*int64(estate.Whole-l.Spec.Target)/int64(estate.Whole) - bad
	switch {
	case s.Total == 0:
		s.State = estate.NoData
	case s.Left < 0:
		s.State = estate.Broken
	default:
		s.State = estate.Kept
	}
	return s
}
