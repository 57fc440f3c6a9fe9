package control

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"strings"
	"sync"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/plane/store"
)

// Recorder writes what happened to objects down as events, for people to read.
// A nil Recorder writes nothing. It is safe for use by many goroutines.
type Recorder struct {
	Store *store.Store
	Now   func() time.Time
	By    string // the part that reports
	Log   *slog.Logger

	mu    sync.Mutex
	words map[topic]word
}

// Happening is something that happened to an object.
type Happening struct {
	On     estate.Ref
	Of     string // what in the object it is the latest word on; the object as a whole when empty
	Reason string // one word for programs
	Text   string // one sentence for people
	Bad    bool   // somebody should look
}

type topic struct {
	on estate.Ref
	of string
}

type word struct {
	reason, text string
	at           time.Time
}

// quiet is how long the same word on the same topic is not written again.
const quiet = 10 * time.Minute

// shared is the project of events on objects that belong to the whole estate:
// every event belongs to a project, and this one is always there.
const shared = "default"

// Tell writes the event, unless it is what was last said on its topic within
// ten minutes. An event that cannot be written is logged, and said again by
// whoever tells it again: it never holds up what it speaks of.
func (r *Recorder) Tell(ctx context.Context, h Happening) {
	if r == nil {
		return
	}
	now := r.Now().UTC()
	if !r.news(h, now) {
		return
	}
	e := &estate.Event{Spec: estate.EventSpec{On: h.On, At: now, By: r.By, Reason: h.Reason, Text: h.Text, Bad: h.Bad}}
	e.Head = estate.Head{APIVersion: estate.APIVersion, Kind: "Event", Metadata: estate.Metadata{
		Name: eventName(h.On, now, store.UUID()), Project: h.On.Project,
	}}
	if h.On.Project == "" {
		e.Metadata.Project = shared
	}
	if err := r.Store.Create(ctx, e); err != nil {
		r.mu.Lock()
		delete(r.words, topic{h.On, h.Of})
		r.mu.Unlock()
		r.Log.Warn("write an event", "on", h.On.String(), "reason", h.Reason, "error", err)
	}
}

// news reports whether the happening says something new, and remembers it.
func (r *Recorder) news(h Happening, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.words == nil {
		r.words = map[topic]word{}
	}
	for t, w := range r.words {
		if now.Sub(w.at) >= quiet {
			delete(r.words, t)
		}
	}
	at := topic{h.On, h.Of}
	last, said := r.words[at]
	if said && last.reason == h.Reason && last.text == h.Text {
		return false
	}
	r.words[at] = word{h.Reason, h.Text, now}
	return true
}

// eventName names an event by its object and its time, and by something random
// for those of one second. Names sort by object, then by time.
func eventName(on estate.Ref, at time.Time, random string) string {
	const stamp = "20060102t150405"
	tail := "-" + at.Format(stamp) + "-" + random[:6]
	object := strings.ToLower(string(on.Kind)) + "-" + on.Name
	if most := 63 - len(tail); len(object) > most {
		sum := sha256.Sum256([]byte(object))
		object = object[:most-9] + "-" + hex.EncodeToString(sum[:4])
	}
	return object + tail
}
