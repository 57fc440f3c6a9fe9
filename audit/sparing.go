package audit

import (
	"context"
	"strconv"
	"sync"
	"time"
)

// Sparing is a Recorder for what anybody can cause without being known, who
// could otherwise fill the disk: it passes on one act in each span, which says
// how many before it were left out.
type Sparing struct {
	To    Recorder
	Now   func() time.Time
	Every time.Duration // the span; a second when 0

	mu   sync.Mutex
	next time.Time
	left int
}

// Record implements Recorder. An act that is left out has sequence 0.
func (s *Sparing) Record(ctx context.Context, a Act) (uint64, error) {
	s.mu.Lock()
	now := s.Now()
	if now.Before(s.next) {
		s.left++
		s.mu.Unlock()
		return 0, nil
	}
	every, left := s.Every, s.left
	if every == 0 {
		every = time.Second
	}
	s.next, s.left = now.Add(every), 0
	s.mu.Unlock()
	if left > 0 {
		with := map[string]string{"more": strconv.Itoa(left)}
		for k, v := range a.With {
			with[k] = v
		}
		a.With = with
	}
	return s.To.Record(ctx, a)
}
