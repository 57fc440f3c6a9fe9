// Package audit keeps who did what: a log that only grows and shows when
// somebody changed it.
package audit

import (
	"context"
	"maps"
	"strings"
	"time"
	"unicode/utf8"

	"consort.dev/consort/fault"
)

// Act is something that somebody does, or tried to. It has no place for a
// secret: what was typed and could be one is never part of it.
type Act struct {
	Who     string            `json:"who,omitempty" doc:"A person; agent:NAME; administrator, for whoever opened the plane's own socket; empty when nobody knows."`
	What    string            `json:"what" doc:"The act, as sign-in, connect or grant.change."`
	On      string            `json:"on,omitempty" doc:"The object, as desktop/default/office."`
	From    string            `json:"from,omitempty" doc:"The address the request came from."`
	Outcome Outcome           `json:"outcome" enum:"begun,done,refused,failed" doc:"How far it came."`
	Why     string            `json:"why,omitempty" doc:"The kind of fault that ended it."`
	Of      uint64            `json:"of,omitempty" doc:"The sequence of the record that it was begun with."`
	With    map[string]string `json:"with,omitempty" doc:"What else matters."`
}

// Outcome is how far an act came.
type Outcome string

// The outcomes. One that was begun and never ended was cut short by a crash:
// it may or may not have happened.
const (
	Begun   Outcome = "begun"
	Done    Outcome = "done"
	Refused Outcome = "refused" // they may not
	Failed  Outcome = "failed"  // they may, and it could not be done
)

// Record is an act as it is kept.
type Record struct {
	Sequence uint64    `json:"sequence" doc:"Its place in the log; none is left out."`
	Time     time.Time `json:"time"`
	Act
}

// Recorder writes acts down.
type Recorder interface {
	// Record returns the act's sequence once it is on disk. An act that is begun
	// and cannot be written down must not be done: the error says so.
	Record(ctx context.Context, a Act) (sequence uint64, err error)
}

// Do writes down that the act begins, does it, and writes down how it went.
// What cannot be written down is not done. do may add to With, for the second
// record, what is known only afterwards. A nil recorder, of tests, writes nothing.
func Do(ctx context.Context, r Recorder, a Act, do func(with map[string]string) error) error {
	later := map[string]string{}
	maps.Copy(later, a.With)
	if r == nil {
		return do(later)
	}
	a.Outcome = Begun
	n, err := r.Record(ctx, a)
	if err != nil {
		return err
	}
	err = do(later)
	a.Of, a.With = n, later
	a.end(err)
	// What has happened is told even if nobody waits for it any more. When that
	// cannot be written, the beginning is there and the log has said so.
	_, _ = r.Record(context.WithoutCancel(ctx), a)
	return err
}

// Tell writes down something that has happened, or was refused by err. A nil
// recorder writes nothing.
func Tell(ctx context.Context, r Recorder, a Act, err error) error {
	if r == nil {
		return nil
	}
	a.end(err)
	_, told := r.Record(context.WithoutCancel(ctx), a)
	return told
}

// end sets how the act went. Of an error only the kind is kept: its text may
// repeat what somebody typed.
func (a *Act) end(err error) {
	a.Outcome = Done
	if err == nil {
		return
	}
	a.Outcome, a.Why = Failed, fault.KindOf(err).String()
	switch fault.KindOf(err) {
	case fault.Denied, fault.Unauthenticated, fault.NotFound, fault.RateLimited:
		a.Outcome = Refused
	}
}

// Limits of an act, in bytes.
const (
	longestField = 256
	mostWith     = 128 // entries
)

// trimmed returns the act with every text short and of valid characters.
func (a Act) trimmed() Act {
	for _, s := range []*string{&a.Who, &a.What, &a.On, &a.From, &a.Why} {
		*s = short(*s)
	}
	with := map[string]string{}
	for k, v := range a.With {
		if len(with) == mostWith {
			with["more"] = "left out"
			break
		}
		with[short(k)] = short(v)
	}
	a.With = with
	return a
}

func short(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= longestField {
		return s
	}
	cut := longestField - len("…")
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}
