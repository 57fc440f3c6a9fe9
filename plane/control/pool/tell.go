package pool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/control"
	"consort.dev/consort/plane/store"
)

// tellQueue tells those who wait their place and when they can expect a seat.
// With hundreds of them, telling each of every seat that is given would be most
// of what the plane does: a place is told anew when it is near the front, or
// has become a fifth shorter, or when the expectation is off by a fifth.
func (k *Keeper) tellQueue(ctx context.Context, v *view) error {
	var taken, begun []time.Time
	for _, d := range v.taken {
		taken = append(taken, d.Status.Taken)
	}
	for _, d := range v.making {
		begun = append(begun, d.Metadata.Created)
	}
	expected := forecast(v.picture, taken, begun)
	var news []store.Edit
	for i, s := range v.queue {
		q := estate.Queued{Place: i + 1, Of: len(v.queue), Assumed: v.make == 0 || v.stay == 0}
		if i < len(expected) {
			q.Expected = expected[i].UTC().Round(time.Second)
		}
		if s.Status.Queue != nil && !noticeable(*s.Status.Queue, q, v.now) {
			continue
		}
		s.Status.Queue, s.Status.Waiting = &q, v.words(q)
		news = append(news, store.Put(s))
	}
	for len(news) > 0 {
		n := min(len(news), tellTogether)
		err := k.Store.Commit(ctx, news[:n]...)
		if errors.Is(err, fault.Conflict) || gone(err) {
			// One of them has left, or was told something else: not the others' loss.
			for _, one := range news[:n] {
				if err = k.Store.Commit(ctx, one); err != nil && !errors.Is(err, fault.Conflict) && !gone(err) {
					return err
				}
			}
			err = nil
		}
		if err != nil {
			return err
		}
		news = news[n:]
	}
	return nil
}

// tellTogether is how many are told in one transaction: see together.
const tellTogether = 100

// noticeable reports whether what is true now differs from what was told by
// enough to be told.
func noticeable(told, now estate.Queued, at time.Time) bool {
	const front = 5
	moved := now.Place != told.Place
	switch {
	case moved && (now.Place <= front || now.Place > told.Place || told.Place-now.Place >= told.Place/5):
		return true
	case now.Of != told.Of && max(now.Of-told.Of, told.Of-now.Of) >= told.Of/5:
		return true
	case told.Expected.IsZero() != now.Expected.IsZero() || told.Assumed != now.Assumed:
		return true
	}
	off := now.Expected.Sub(told.Expected).Abs()
	return off > 2*time.Second && off > told.Expected.Sub(at).Abs()/5
}

// words says it to the person who waits. The time is a number of its own, so
// that the portal can count it down.
func (v *view) words(q estate.Queued) string {
	text := fmt.Sprintf("waiting for a seat: place %d of %d", q.Place, q.Of)
	switch {
	case v.blueprint == nil:
		return text + "; there is no blueprint " + v.pool.Spec.Blueprint
	case q.Expected.IsZero():
		return text + "; no host has room for a seat now"
	case q.Assumed:
		return text + fmt.Sprintf(", about %s, guessed: nothing was measured here yet", span(q.Expected.Sub(v.now)))
	}
	return text + ", about " + span(q.Expected.Sub(v.now))
}

// span is a length of time as people say it.
func span(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return "some seconds"
	case d < 100*time.Second:
		return fmt.Sprintf("%d seconds", int(d.Round(10*time.Second).Seconds()))
	case d < 100*time.Minute:
		return fmt.Sprintf("%d minutes", int(d.Round(time.Minute).Minutes()))
	}
	return fmt.Sprintf("%d hours", int(d.Round(time.Hour).Hours()))
}

// report writes the pool's status from what the step saw and did.
func (k *Keeper) report(ctx context.Context, v *view, d decision) error {
	var was estate.PoolStatus
	p, err := store.Modify(ctx, k.Store, v.pool.Metadata.Project, v.pool.Metadata.Name, func(p *estate.Pool) error {
		was = p.Status
		s := &p.Status
		s.Observed = p.Metadata.Generation
		s.Wanted, s.Because = d.target, d.why
		s.Warm, s.Making, s.Taken, s.Queue = len(v.warm), len(v.making), len(v.taken), len(v.queue)
		s.Make, s.Stay = estate.Duration(v.make), estate.Duration(v.stay)
		s.Template = cmp.Or(v.template, s.Template)
		k.rate(s, v)
		s.Waiting = v.lacks(d)
		ready := estate.Condition{Type: estate.Ready, Status: estate.False, Text: s.Waiting, Since: k.Now()}
		if s.Waiting == "" {
			ready.Status = estate.True
		}
		s.Set(ready)
		return nil
	})
	if err != nil {
		if gone(err) {
			return nil
		}
		return err
	}
	if p.Status.Wanted != was.Wanted {
		k.Events.Tell(ctx, control.Happening{On: p.Ref(), Of: "wanted", Reason: "Scaled", Text: fmt.Sprintf("%d ready seats are wanted, %d before: %s", d.target, was.Wanted, d.why)})
	}
	return nil
}

// lacks says in one sentence what is waited for, or "".
func (v *view) lacks(d decision) string {
	why := d.held
	if v.blueprint == nil {
		why = "there is no blueprint " + v.pool.Spec.Blueprint + "; apply it, or name another"
	}
	for _, m := range v.making {
		if m.Status.State == estate.DesktopBlocked || m.Status.State == estate.DesktopPreparing {
			why = m.Status.Waiting
		}
	}
	if why != "" {
		why = ": " + why
	}
	switch {
	case len(v.queue) > 0:
		return fmt.Sprintf("%d persons wait for a seat%s", len(v.queue), why)
	case len(v.warm) < d.target:
		return fmt.Sprintf("%d of %d ready seats are there%s", len(v.warm), d.target, why)
	}
	return ""
}

// rate takes those who came since the last look into the rate of arrivals. It
// is worked out when somebody came, and now and then as it fades.
func (k *Keeper) rate(s *estate.PoolStatus, v *view) {
	came, newest := 0, s.Seen
	for _, at := range v.came {
		if at.After(s.Seen) {
			came++
		}
		if at.After(newest) {
			newest = at
		}
	}
	if came == 0 && (s.Rate == 0 || v.now.Sub(s.Told) < time.Minute) {
		return
	}
	since := time.Duration(0)
	if !s.Told.IsZero() {
		since = v.now.Sub(s.Told)
	}
	s.Rate, s.Seen, s.Told = decayed(s.Rate, since, came), newest, v.now.UTC()
}
