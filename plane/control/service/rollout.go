package service

import (
	"fmt"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/front"
	"consort.dev/consort/plane/control"
)

// steer orders replicas and has others leave, and moves a rollout on. It is
// pure but for the view. before is what replicas had answered when the first new
// one became ready.
func (v *view) steer(before map[string]front.Tally) (news []control.Happening) {
	s, spec := &v.service.Status, &v.service.Spec
	s.Wanted = min(max(s.Wanted, spec.Scale.Least), spec.Scale.Most)
	if s.Because == "" {
		s.Because = fmt.Sprintf("%d is the least there may be", spec.Scale.Least)
	}
	if s.Serving() == 0 {
		return nil
	}
	if rolling(s) {
		news = v.roll(before)
	}
	if !rolling(s) {
		v.settle(s.Serving(), s.Wanted)
		for i := range s.Replicas {
			if s.Replicas[i].Revision != s.Serving() {
				v.leave(&s.Replicas[i])
			}
		}
	}
	v.swap()
	return news
}

// roll takes the next step of a rollout: one new replica, which is judged beside
// the old ones; then one new one and one old one fewer, again and again.
func (v *view) roll(before map[string]front.Tally) []control.Happening {
	s := &v.service.Status
	o := s.Rollout
	news, olds := v.of(o.To), v.of(o.From)
	if why := v.broken(news, before); why != "" {
		return v.back(why)
	}
	if o.Judged.IsZero() {
		v.settle(o.From, s.Wanted)
		if len(news) == 0 {
			v.add(o.To, estate.Replica{})
			return nil
		}
		verdict, passed := v.judge(news, before)
		if o.Verdict = verdict; !passed {
			return nil
		}
		o.Judged = v.now
	}
	news, olds = v.of(o.To), v.of(o.From) // settle may have moved them
	ready := 0
	for _, r := range news {
		if r.State == estate.ReplicaReady {
			ready++
		}
	}
	switch {
	case len(olds) == 0 && ready >= s.Wanted:
		o.State, o.Ended = estate.RolloutDone, v.now
		s.Revision(o.To).Verdict = o.Verdict
		return []control.Happening{{Reason: "RolledOut", Text: fmt.Sprintf("revision %d serves: %s", o.To, o.Verdict)}}
	case ready < len(news): // one at a time
	case len(news)+len(olds) > s.Wanted && len(olds) > 0:
		v.leave(olds[len(olds)-1])
	case len(news) < s.Wanted:
		v.add(o.To, estate.Replica{})
	}
	return nil
}

// back ends a rollout: the new replicas leave, and the revision is not tried
// again until the spec changes.
func (v *view) back(why string) []control.Happening {
	s := &v.service.Status
	o := s.Rollout
	o.State, o.Ended, o.Verdict = estate.RolloutRolledBack, v.now, why
	rev := s.Revision(o.To)
	rev.Refused, rev.Verdict = true, why
	return []control.Happening{{Reason: "RolledBack", Text: fmt.Sprintf("revision %d was rolled back: %s", o.To, why), Bad: true}}
}

// The gate. A new revision fails when, of at least failLeast requests, twice as
// many as of the old one's and as the level allows were bad. It passes with a
// weighted score of at least passScore, where a warning counts half.
const (
	failLeast = 5
	failTimes = 2.0
	slowTimes = 1.25
	passScore = 0.75
	longest   = 3 // watches, where few requests come
)

// answers are the requests that some replicas got since the gate opened. Who left
// too late to be content has no answer, and counts among the bad ones and among
// all; the time is that of those with an answer.
type answers struct{ all, bad, failed, answered, time float64 }

func (a answers) share(n float64) float64 {
	if a.all == 0 {
		return 0
	}
	return n / a.all
}

// pace is how long an answer took, in seconds.
func (a answers) pace() float64 { return a.time / max(a.answered, 1) }

// answered sums up what the replicas answered, bad by the level that decides.
func (v *view) answered(rs []*estate.Replica, before map[string]front.Tally) answers {
	var a answers
	promise, promised := v.service.Spec.Promise()
	for _, r := range rs {
		st, _ := v.standing(r.Machine)
		t, was := st.Tally, before[r.Machine]
		a.answered += float64(t.Answered - was.Answered)
		a.failed += float64(t.Failed - was.Failed)
		a.time += (t.Time - was.Time).Seconds()
		all, bad := t.Answered-was.Answered, t.Failed-was.Failed
		for i, c := range t.Counts {
			if promised && c.Objective == promise.Name {
				all, bad = c.Total, c.Total-c.Good
				if i < len(was.Counts) {
					all -= was.Counts[i].Total
					bad -= was.Counts[i].Total - was.Counts[i].Good
				}
			}
		}
		a.all += float64(all)
		a.bad += float64(bad)
	}
	return a
}

// broken says why the new revision must not go on, if it must not.
func (v *view) broken(news []*estate.Replica, before map[string]front.Tally) string {
	patience := time.Duration(v.service.Spec.Update.Defaults().Patience)
	for _, r := range news {
		if r.State == estate.ReplicaStarting && v.now.Sub(r.Made) > patience {
			return fmt.Sprintf("replica %s did not answer within %s", r.Machine, patience)
		}
	}
	a, old := v.answered(news, before), v.answered(v.of(v.service.Status.Rollout.From), before)
	for _, c := range []struct {
		what        string
		bad, others float64
	}{{"failed", a.failed, old.share(old.failed)}, {"were bad", a.bad, old.share(old.bad)}} {
		if c.bad >= failLeast && a.share(c.bad) > failTimes*max(c.others, v.budget()) {
			return fmt.Sprintf("%.1f%% of its %.0f requests %s, and %.1f%% of those before it", 100*a.share(c.bad), a.all, c.what, 100*c.others)
		}
	}
	return ""
}

// budget is the share of requests that may be bad; one in a hundred where
// nothing is promised.
func (v *view) budget() float64 {
	if p, ok := v.service.Spec.Promise(); ok {
		return float64(estate.Whole-p.Target) / float64(estate.Whole)
	}
	return 0.01
}

// judge says how the first new replica does beside the old ones, and whether
// others may follow.
func (v *view) judge(news []*estate.Replica, before map[string]front.Tally) (verdict string, passed bool) {
	u := v.service.Spec.Update.Defaults()
	first := news[0]
	if first.State != estate.ReplicaReady {
		return fmt.Sprintf("replica %s is waited for", first.Machine), false
	}
	a, old := v.answered(news, before), v.answered(v.of(v.service.Status.Rollout.From), before)
	watched := v.now.Sub(first.Ready)
	if watch := time.Duration(u.Watch); watched < watch || a.all < float64(u.Requests) && watched < longest*watch {
		return fmt.Sprintf("replica %s has answered %.0f requests, and is watched for %s", first.Machine, a.all, watch), false
	}
	var got, most float64
	warnings := ""
	check := func(weight float64, well bool, warning string) {
		most += weight
		if got += weight; !well {
			got -= weight / 2
			warnings += "; " + warning
		}
	}
	check(3, a.share(a.failed) <= old.share(old.failed)+v.budget(), fmt.Sprintf("%.2f%% failed", 100*a.share(a.failed)))
	check(2, a.share(a.bad) <= old.share(old.bad)+v.budget(), fmt.Sprintf("%.2f%% were bad", 100*a.share(a.bad)))
	check(1, old.answered == 0 || a.pace() <= slowTimes*old.pace(),
		fmt.Sprintf("it answers in %.1f ms where the others need %.1f ms", 1000*a.pace(), 1000*old.pace()))
	check(1, a.all >= float64(u.Requests), fmt.Sprintf("%.0f requests are few to judge by", a.all))
	word := "passed"
	if warnings != "" {
		word = "passed with warnings"
	}
	if got/most < passScore {
		return fmt.Sprintf("held back with a score of %.2f of 1, %.2f needed%s", got/most, passScore, warnings), false
	}
	return fmt.Sprintf("%s with %.0f requests, %.2f%% of them bad%s", word, a.all, 100*a.share(a.bad), warnings), true
}

// baseline returns what replicas had answered when the first new one of the
// rollout that runs became ready. A plane that has begun since does not know,
// and counts from its own beginning.
func (k *Keeper) baseline(v *view) map[string]front.Tally {
	k.mu.Lock()
	defer k.mu.Unlock()
	ref := v.service.Ref()
	if !rolling(&v.service.Status) {
		delete(k.before, ref)
		return nil
	}
	if k.before == nil {
		k.before = map[estate.Ref]map[string]front.Tally{}
	}
	if k.before[ref] == nil {
		at := map[string]front.Tally{}
		for _, st := range v.sight.Replicas {
			at[st.Name] = st.Tally
		}
		k.before[ref] = at
	}
	for _, st := range v.sight.Replicas { // one that left the front and came back counts anew
		if st.Tally.Answered < k.before[ref][st.Name].Answered {
			delete(k.before[ref], st.Name)
		}
	}
	return k.before[ref]
}
