package decide

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"consort.dev/consort/estate"
)

const (
	mostIn     = 0.25 // share of the replicas that may leave in one step
	growing    = 1.02 // times the rate of the last minute, above which nobody leaves
	blast      = 0.10 // share of the replicas that may be away at once for single remedies
	usualActs  = 30   // an hour
	small      = 0.3  // share of the acts of an hour that may take away next to nothing
	worthier   = 4.0  // and how much that share grows with the share of replicas that leave
	betweenIn  = 2 * time.Minute
	regretted  = 90 * time.Second // after leaving, within which to want more is regret
	oneByOne   = 8 * time.Minute  // between two replacements of single replicas
	betweenOwn = time.Hour        // between two moves of one machine
	tooSlow    = 1.25             // times the median response time of its equals
	slowOfTwo  = 1.5              // times that of its only equal: which of two is as usual is less certain
	plainly    = 3.5              // standard errors beyond the others' response time, where times vary as much as they are long
	fewest     = 10.0             // answers, below which nothing is plain
	tooBad     = 3.0              // times the budget, and times the share of its equals
	knownSpans = 10               // before a replica is judged
	outLong    = 4.0              // spans within about the last minute that its front left a replica out: more than the first pause of a front
	goneLong   = 12.0             // the same where most are out: 100 s without a break
	vainPushes = 2                // in a row, before more replicas are no remedy
)

// option is one thing that could be done now.
type option struct {
	act    Act
	to     int
	gone   []estate.MachineID
	avoid  []string
	urgent bool
	undoes time.Time
	why    string // what speaks for it, as the end of a sentence
	bring  string // what it should bring
	within time.Duration
}

// choose takes the first option that no guard rail holds back; the others become
// alternatives.
func (v view) choose(s *State) Decision {
	d := Decision{At: v.m.At, Act: Wait, From: v.units, To: v.units, Mode: Strictest(v.p.Modes), Why: v.why()}
	for _, o := range v.options(s) {
		not := v.heldBack(o, s)
		if not == "" && d.Act != Wait {
			not = fmt.Sprintf("one act at a time, and %s comes first", d.Act)
		}
		if not != "" {
			d.Alternatives = append(d.Alternatives, Alternative{o.act, o.to, not})
			continue
		}
		d.Act, d.To, d.Gone, d.Avoid, d.Urgent, d.Undoes = o.act, o.to, o.gone, o.avoid, o.urgent, o.undoes
		d.Expected = Expected{d.At, o.act, d.At.Add(o.within), o.bring}
		d.Say = o.why
	}
	if d.Act == Wait {
		d.Say = v.sayWait()
	} else {
		d.Alternatives = append(d.Alternatives, Alternative{Wait, v.units, v.notWaiting(d)})
	}
	return d
}

// options are all remedies, the most pressing first.
func (v view) options(s *State) []option {
	var all []option
	switch v.p.Scaling {
	case Size:
		all = append(all, v.resize(s), v.single(s, Move))
	case Place:
		all = append(all, v.single(s, Move))
	default:
		all = append(all, v.out(s), v.single(s, Replace), v.in(s))
	}
	return all
}

// out adds what the forecast asks for, and more while the level is breaking.
func (v view) out(s *State) option {
	o := option{act: Out, to: v.want, within: v.m.Boot + long,
		why: v.sayWant("replica"), bring: fmt.Sprintf("%s again", v.p.Level)}
	if v.burning && v.m.At.Sub(s.Pushed) > v.m.Boot && s.Vain < vainPushes {
		pushed := min(v.p.Most, int(math.Ceil(float64(v.units)*push)))
		if pushed >= o.to {
			o.to, o.why = pushed, v.sayPush(pushed)
		}
	}
	if o.to > v.units && s.addedSince(v.m.At.Add(-long)) {
		o.to = min(o.to+1, v.p.Most) // it grows: one more now spares an act
	}
	o.urgent = v.burning
	if !v.burning {
		o.bring = fmt.Sprintf("%s while up to %s requests/s arrive", v.p.Level, round(v.safe*float64(o.to)))
	}
	if !s.LastIn.IsZero() && v.m.At.Sub(s.LastIn) < regretted && o.to > v.units {
		o.undoes = s.LastIn
	}
	return o
}

// in takes away, slowest first, what nothing of late asked for.
func (v view) in(s *State) option {
	to := max(s.peak(v.m.At), v.p.Least, v.units-max(1, int(mostIn*float64(v.units))))
	o := option{act: In, to: min(to, v.units), within: s.Hold}
	o.gone = v.victims(s, v.units-o.to)
	o.why = fmt.Sprintf("%s, because no more were wanted for %s: %s", count(o.to, "replica"), s.Hold, v.sayLoad())
	o.bring = fmt.Sprintf("%s with %d fewer", v.p.Level, v.units-o.to)
	return o
}

// victims are the n ready replicas that answer slowest. Those that just came are
// not known yet and stay; but not who came in a replacement and is plainly as slow
// as what is replaced, for what the others did is mostly older.
func (v view) victims(s *State, n int) []estate.MachineID {
	rs, usual := slices.Clone(v.ready), 0.0
	if !s.Singles.IsZero() && v.m.At.Sub(s.Singles) < v.m.Boot+2*long {
		usual = v.usual(s)
	}
	pace := func(r Replica) float64 {
		b := s.Each[r.ID]
		if p := b.pace(); usual > 0 && p > tooSlow*usual && b.tells(p/usual) {
			return p
		}
		return b.known()
	}
	slices.SortStableFunc(rs, func(a, b Replica) int {
		return cmp.Or(cmp.Compare(pace(b), pace(a)), cmp.Compare(a.ID, b.ID))
	})
	var ids []estate.MachineID
	for _, r := range rs[:min(max(n, 0), len(rs))] {
		ids = append(ids, r.ID)
	}
	return ids
}

// usual is the median pace of the ready replicas that are known, or 0.
func (v view) usual(s *State) float64 {
	var paces []float64
	for _, r := range v.ready {
		if p := s.Each[r.ID].known(); p > 0 {
			paces = append(paces, p)
		}
	}
	if len(paces) == 0 {
		return 0
	}
	slices.Sort(paces)
	return paces[len(paces)/2]
}

// known is the pace of a replica, or 0 of one that is too new to be judged.
func (b Behaviour) known() float64 {
	if b.Spans < knownSpans {
		return 0
	}
	return b.pace()
}

// resize picks the smallest size that bears the forecast.
func (v view) resize(s *State) option {
	want := v.want
	if v.burning {
		want = max(want, int(math.Ceil(float64(v.units)*push)))
	} else {
		want = max(want, s.peak(v.m.At))
	}
	to := v.units
	if len(v.p.Sizes) > 0 {
		to = v.p.Sizes[len(v.p.Sizes)-1]
		for _, size := range slices.Backward(v.p.Sizes) {
			if size >= want {
				to = size
			}
		}
	}
	o := option{act: Resize, to: to, urgent: v.burning, within: s.Hold, why: v.sayWant("vCPU")}
	o.bring = fmt.Sprintf("%s while up to %s requests/s arrive", v.p.Level, round(v.safe*float64(to)))
	return o
}

// single answers one replica that does worse than its equals at the same load,
// or a service of one machine that breaks its level.
func (v view) single(s *State, act Act) option {
	o := option{act: act, to: v.units, within: v.m.Boot + long}
	worst, text := v.worst(s)
	if act == Move && len(v.ready) == 1 && v.burning {
		worst, text = v.ready[0], fmt.Sprintf("%s of its requests were bad in the last minute", percent(v.minute.badShare()))
	}
	if worst.ID == "" {
		return o
	}
	o.gone = []estate.MachineID{worst.ID}
	o.avoid = append(slices.Clone(s.Left[worst.ID]), worst.Host)
	o.urgent = v.burning
	verb := map[Act]string{Replace: "another machine in place of", Move: "another host for"}[act]
	o.why = fmt.Sprintf("%s %s, because %s", verb, worst.ID, text)
	o.bring = fmt.Sprintf("no replica slower than the others: %s", v.p.Level)
	return o
}

// worst is the replica that is left out by its front, or too slow or too bad
// beside its equals, and what says so.
func (v view) worst(s *State) (Replica, string) {
	if r, text := v.leftOut(s); r.ID != "" {
		return r, text
	}
	var paces []float64
	var bad, answered float64
	for _, r := range v.ready {
		b := s.Each[r.ID]
		bad, answered = bad+b.Bad, answered+b.Answered
		if b.known() > 0 {
			paces = append(paces, b.pace())
		}
	}
	if len(paces) < 2 {
		return Replica{}, ""
	}
	slices.Sort(paces)
	median, slow := paces[len(paces)/2], tooSlow
	if len(paces) == 2 {
		median, slow = paces[0], slowOfTwo
	}
	var worst Replica
	text, most := "", 0.0
	for _, r := range v.ready {
		b := s.Each[r.ID]
		others := ratio(bad-b.Bad, answered-b.Answered)
		share := ratio(b.Bad, b.Answered)
		isBad := b.Bad >= enoughBad && share > tooBad*max(v.p.Level.budget(), others)
		isSlow := b.pace() > slow*median && b.tells(b.pace()/median)
		if b.known() <= most || !isBad && !isSlow {
			continue
		}
		worst, most = r, b.known()
		text = fmt.Sprintf("it answers in %s where its equals need %s", millis(b.pace()), millis(median))
		if isBad {
			text = fmt.Sprintf("%s of its requests are bad and %s of its equals'", percent(share), percent(others))
		}
	}
	return worst, text
}

// tells reports whether the replica has answered often enough to say that it
// takes so many times as long as others. The slower it is, the fewer will do:
// a front that chooses the quicker one gives it few.
func (b Behaviour) tells(slower float64) bool {
	return b.Answered >= fewest && (slower-1)*math.Sqrt(b.Answered) >= plainly
}

// leftOut is the replica that its front has left out longest, of those it left
// out for long. Where most are out they are no worse than the others: that has to
// go on for longer.
func (v view) leftOut(s *State) (Replica, string) {
	var worst Replica
	for _, r := range v.ready {
		if b := s.Each[r.ID]; b.Out >= outLong && (worst.ID == "" || b.Out > s.Each[worst.ID].Out) {
			worst = r
		}
	}
	switch {
	case worst.Out == "", v.mostGone(s) && s.Each[worst.ID].Out < goneLong:
		return Replica{}, ""
	case v.mostGone(s):
		return worst, fmt.Sprintf("its front leaves it out, one of %d of %d: %s", v.gone(s), len(v.ready), worst.Out)
	}
	return worst, "its front leaves it out: " + worst.Out
}

// gone is how many of the ready replicas their front has left out for long.
func (v view) gone(s *State) (n int) {
	for _, r := range v.ready {
		if s.Each[r.ID].Out >= outLong {
			n++
		}
	}
	return n
}

func (v view) mostGone(s *State) bool { return 2*v.gone(s) > len(v.ready) }
func (v view) allGone(s *State) bool  { return len(v.ready) > 0 && v.gone(s) == len(v.ready) }
