package pool

import (
	"container/heap"
	"time"
)

// slots are the moments when seats become free, soonest first.
type slots []time.Time

func (s slots) Len() int           { return len(s) }
func (s slots) Less(i, j int) bool { return s[i].Before(s[j]) }
func (s slots) Swap(i, j int)      { s[i], s[j] = s[j], s[i] }

// Push implements heap.Interface.
func (s *slots) Push(x any) { *s = append(*s, x.(time.Time)) }

// Pop implements heap.Interface.
func (s *slots) Pop() any {
	last := (*s)[len(*s)-1]
	*s = (*s)[:len(*s)-1]
	return last
}

// forecast says when each of those who wait can expect to be at work, in their
// order. taken is when the persons on seats got theirs; begun is when the seats
// that are being made were begun. It plays on: seats under way come when they
// are made, those there is room for a few at a time, and the others when
// somebody who has one leaves and another is made in its place.
func forecast(p picture, taken, begun []time.Time) []time.Time {
	make, stay := p.makeTime(), p.stayTime()
	total := p.warm + p.making + p.taken + p.leaving
	var free slots
	for i := range max(0, min(p.room, p.spec.Maximum-total)) {
		wave := time.Duration((len(begun) + i) / p.atOnce())
		free = append(free, p.now.Add(wave*make))
	}
	for range min(p.leaving, p.spec.Maximum) {
		free = append(free, p.now)
	}
	for _, t := range taken {
		free = append(free, leaves(t, p.now, stay))
	}
	heap.Init(&free)
	out := []time.Time{}
	for range p.waiting {
		if len(free) == 0 {
			return out // there is no room for a single seat
		}
		ready := free[0].Add(make)
		out = append(out, ready)
		free[0] = ready.Add(stay)
		heap.Fix(&free, 0)
	}
	return out
}

// leaves is when a person who took a seat then will have left. Who has stayed
// longer than is usual will stay a while: as a rule half as long again.
func leaves(took, now time.Time, stay time.Duration) time.Time {
	if usual := took.Add(stay); usual.After(now) {
		return usual
	}
	return now.Add(now.Sub(took) / 2)
}
