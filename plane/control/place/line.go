package place

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/packing"
)

// waiter is a machine that found no room.
type waiter struct {
	machine *estate.Machine
	among   []string  // hosts that may take it; all when nil
	asked   time.Time // for the last time
	place   int       // in the line, as it was told
	of      int
}

// overdue is when a machine that waits has not asked for so long that it holds
// nobody up: something is wrong with it that room does not mend.
const overdue = 4 * lookAgain

// older reports whether a has waited longer than b.
func older(a, b *estate.Machine) bool {
	return cmp.Or(a.Metadata.Created.Compare(b.Metadata.Created), strings.Compare(itemOf(a.Ref()), itemOf(b.Ref()))) < 0
}

// line are those that wait, the longest first.
func (s *stock) line() []*waiter {
	all := make([]*waiter, 0, len(s.waiting))
	for _, w := range s.waiting {
		all = append(all, w)
	}
	slices.SortFunc(all, func(a, b *waiter) int {
		if older(a.machine, b.machine) {
			return -1
		}
		return 1
	})
	return all
}

// left are the hosts that the machine may have: those that would take one which
// has waited longer are kept for that. One that fits nowhere holds nobody up, so
// a large machine may see smaller ones pass.
func (s *stock) left(m *estate.Machine, among []string, now time.Time) []string {
	type alike struct {
		flavour *packing.Flavour
		among   string
	}
	kept, seen := map[string]bool{}, map[alike]bool{}
	for _, w := range s.line() {
		if !older(w.machine, m) {
			break
		}
		f := s.asks(w.machine)
		kind := alike{f, fmt.Sprint(w.among == nil, w.among)}
		if now.Sub(w.asked) > overdue || seen[kind] {
			continue
		}
		seen[kind] = true
		hosts := w.among
		if hosts == nil {
			hosts = s.cluster.Names()
		}
		for _, name := range s.cluster.Fitting(f, packing.Item{Name: itemOf(w.machine.Ref())}, hosts, 0) {
			kept[name] = true
		}
	}
	if len(kept) == 0 {
		return among
	}
	if among == nil {
		among = s.cluster.Names()
	}
	return slices.DeleteFunc(slices.Clone(among), func(name string) bool { return kept[name] })
}

// wait puts the machine in the line, and returns its place among those that wait
// for the same hosts, as far as that is worth telling anew.
func (s *stock) wait(m *estate.Machine, among []string, now time.Time) (place, of int) {
	w := s.waiting[m.Ref()]
	if w == nil {
		w = &waiter{}
		s.waiting[m.Ref()] = w
	}
	was := *m // who asks writes what it is told into its own
	w.machine, w.among, w.asked = &was, among, now
	for _, o := range s.waiting {
		if o == w || o.rivals(w) {
			of++
			if o == w || older(o.machine, m) {
				place++
			}
		}
	}
	if w.of == 0 || noticeable(w.place, place) || noticeable(w.of, of) {
		w.place, w.of = place, of
	}
	return w.place, w.of
}

// rivals reports whether there are hosts that both may go to.
func (w *waiter) rivals(o *waiter) bool {
	if w.among == nil || o.among == nil {
		return true
	}
	return slices.ContainsFunc(w.among, func(name string) bool { return slices.Contains(o.among, name) })
}

// noticeable reports whether a number in the line has changed by enough to be
// told: with hundreds who wait, each departure would be told to all of them.
func noticeable(told, now int) bool {
	const front = 5
	return told != now && (now <= front || max(told-now, now-told) >= told/5)
}
