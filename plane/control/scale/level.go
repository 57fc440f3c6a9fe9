package scale

import (
	"context"
	"errors"
	"slices"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/front"
	"consort.dev/consort/plane/control"
	"consort.dev/consort/plane/fronts"
	"consort.dev/consort/plane/slo"
	"consort.dev/consort/plane/store"
)

// saveEvery is how often the counts of levels are stored. What a plane that dies
// had counted since is lost, for its fronts die with it.
const saveEvery = 5 * time.Minute

// level is one level's ledger, and what fills it.
type level struct {
	ledger *slo.Ledger
	meter  *slo.Meter
}

// count takes what the front has counted into the ledgers, and says how the
// levels stand.
func (k *Scaler) count(ctx context.Context, s *estate.Service, m *memory, sight fronts.Sight, now time.Time) error {
	var standing []estate.Standing
	for _, l := range s.Spec.Levels {
		i := slices.IndexFunc(sight.Objectives, func(c front.Count) bool { return c.Objective == l.Name })
		if i < 0 {
			continue // nobody measures it yet
		}
		own, err := k.level(ctx, s.Ref(), m, l, sight.Began)
		if err != nil {
			return err
		}
		own.ledger.Advance(now)
		c := sight.Objectives[i]
		fresh, known, err := own.meter.Read(slo.Reading{Source: "front", Started: sight.Began, Count: slo.Count{Good: c.Good, Total: c.Total}})
		if err == nil && known {
			err = own.ledger.Add(now, fresh)
		}
		if err != nil {
			return err
		}
		standing = append(standing, k.stand(ctx, s.Ref(), l, own, now))
	}
	if err := k.keep(ctx, s.Ref(), m, now); err != nil {
		return err
	}
	_, err := store.Modify(ctx, k.Store, s.Metadata.Project, s.Metadata.Name, func(s *estate.Service) error {
		s.Status.Levels = standing
		return nil
	})
	return err
}

// stand is how a level stands now; a budget that burns too fast is told.
func (k *Scaler) stand(ctx context.Context, ref estate.Ref, l estate.NamedLevel, own *level, now time.Time) estate.Standing {
	zone, err := time.LoadLocation(l.Window.TimeZone)
	if err != nil {
		zone = time.UTC
	}
	o := slo.ObjectiveOf(&l.Level)
	from, end := slo.Window(l.Window, now, zone)
	v := own.ledger.Judge(o, from, end)
	out := estate.Standing{Name: l.Name, State: v.State, Good: v.Good, Total: v.Total, Left: v.Left(), Measured: now.Truncate(time.Minute)}
	out.Burn, _ = own.ledger.Judge(o, end.Add(-time.Hour), end).Rate(l.Target)
	for _, a := range own.ledger.Alerts(o, time.Duration(l.Window.Length()), now) {
		if a.Found == slo.Burns && out.Alert == "" {
			out.Alert = string(a.Severity)
			k.Events.Tell(ctx, control.Happening{On: ref, Of: "level " + l.Name, Reason: "Burns", Bad: true,
				Text: "the budget of level " + l.Name + " burns too fast over " + a.Long.String()})
		}
	}
	return out
}

// level returns the ledger of the level, as it was stored when this process has
// none yet.
func (k *Scaler) level(ctx context.Context, ref estate.Ref, m *memory, l estate.NamedLevel, began time.Time) (*level, error) {
	if own := m.levels[l.Name]; own != nil {
		return own, nil
	}
	own := &level{slo.NewLedger(began, time.Duration(l.Window.Length())), slo.NewMeter(began.Add(-time.Minute))}
	e, err := k.Store.KV().Get(ctx, k.key(ref)+"/levels/"+l.Name)
	switch {
	case errors.Is(err, fault.NotFound):
	case err != nil:
		return nil, err
	default:
		ledger, meter, err := slo.Restore(e.Value)
		if err != nil {
			k.Log.Warn("the counts of a level cannot be read; they begin anew", "service", ref.String(), "level", l.Name, "error", err)
		} else if ledger.Keep() >= time.Duration(l.Window.Length()) {
			own = &level{ledger, meter}
		}
	}
	m.levels[l.Name] = own
	return own, nil
}

// keep stores the ledgers, now and then, and what was learned.
func (k *Scaler) keep(ctx context.Context, ref estate.Ref, m *memory, now time.Time) error {
	if now.Sub(m.saved) < saveEvery {
		return nil
	}
	saved, err := k.save(ref, m.state)
	if err != nil {
		return err
	}
	edits := []store.Edit{saved}
	for name, l := range m.levels {
		edits = append(edits, store.Raw(store.Txn{Then: []store.Write{{Key: k.key(ref) + "/levels/" + name, Value: slo.Snapshot(l.ledger, l.meter)}}}))
	}
	if err := k.Store.Commit(ctx, edits...); err != nil {
		return err
	}
	m.saved = now
	return nil
}
