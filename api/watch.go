package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// EventType says what an event of a watch is.
type EventType string

// The events of a watch.
const (
	Is     EventType = "is"     // the object is there, as given
	Gone   EventType = "gone"   // the object is gone; as it was last seen
	Synced EventType = "synced" // everything there is has been told; comes after each (re)listing
	Lost   EventType = "lost"   // the plane cannot be reached for now; Err says why. The watch goes on.
	Ended  EventType = "ended"  // the watch cannot go on; Err says why. The last event.
)

// EventOf is something a watch tells about objects that are a T.
type EventOf[T any] struct {
	Type   EventType
	Object T // zero for Synced, Lost and Ended
	Err    error
}

// Event is what WatchKinds tells.
type Event = EventOf[estate.Resource]

// Watch tells every object of the kind, then Synced, then every change, until
// ctx ends; then it closes the channel. It reconnects and lists again by
// itself; what went away meanwhile is told as Gone. project "" is all.
func Watch[T any](ctx context.Context, c *Client, project string) <-chan EventOf[*T] {
	out := make(chan EventOf[*T])
	in := c.WatchKinds(ctx, project, estate.KindOf[T]().Kind)
	go func() {
		defer close(out)
		for e := range in {
			o, _ := any(e.Object).(*T)
			select {
			case out <- EventOf[*T]{e.Type, o, e.Err}:
			case <-ctx.Done():
			}
		}
	}()
	return out
}

// WatchKinds is Watch for several kinds over one connection.
func (c *Client) WatchKinds(ctx context.Context, project string, kinds ...estate.Kind) <-chan Event {
	w := &watch{c: c, query: url.Values{}, seen: map[estate.Ref]estate.Resource{}, out: make(chan Event)}
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = string(k)
	}
	w.query.Set("kinds", strings.Join(names, ","))
	if project != "" {
		w.query.Set("project", project)
	}
	go w.run(ctx)
	return w.out
}

// watch is one watch over all its connections.
type watch struct {
	c       *Client
	query   url.Values
	version int64 // told up to here; 0 is nothing, or list again
	seen    map[estate.Ref]estate.Resource
	out     chan Event
}

// quiet is how long a watch may be silent before it is taken for dead: the
// server sends a bookmark every ten seconds.
const quiet = 35 * time.Second

func (w *watch) run(ctx context.Context) {
	defer close(w.out)
	for try := 0; ; try++ {
		began := w.version
		err := w.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		switch fault.KindOf(err) {
		case fault.Stale:
			w.version = 0
		case fault.Invalid, fault.Unauthenticated, fault.Denied, fault.NotFound, fault.Unsupported:
			w.send(ctx, Event{Type: Ended, Err: err})
			return
		}
		if w.version != began {
			try = 0
		}
		if !errors.Is(err, fault.Stale) && !w.send(ctx, Event{Type: Lost, Err: err}) {
			return
		}
		if !sleep(ctx, backoff(try, 5*time.Second)) {
			return
		}
	}
}

// follow reads one connection until it ends.
func (w *watch) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	silence := time.AfterFunc(quiet, cancel)
	defer silence.Stop()
	listing := w.version == 0
	told := map[estate.Ref]bool{}
	if w.query.Del("version"); !listing {
		w.query.Set("version", strconv.FormatInt(w.version, 10))
	}
	resp, err := w.c.once(ctx, request{method: http.MethodGet, path: WatchPath, query: w.query}, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := json.NewDecoder(bufio.NewReaderSize(resp.Body, 64<<10))
	for {
		var l WatchLine
		if err := lines.Decode(&l); err != nil {
			return ended(ctx, err)
		}
		silence.Reset(quiet)
		switch {
		case l.Type == Bookmark && listing:
			listing = false
			if !w.forget(ctx, told) || !w.send(ctx, Event{Type: Synced}) {
				return ctx.Err()
			}
		case l.Type == Bookmark:
		default:
			ref, ok, err := w.tell(ctx, l)
			if err != nil || !ok {
				return err
			}
			told[ref] = true
		}
		if !listing {
			w.version = max(w.version, l.Version)
		}
	}
}

func ended(ctx context.Context, err error) error {
	if ctx.Err() == nil && errors.Is(err, io.EOF) {
		return fault.Unavailable.Errorf("watch: the server ended it")
	}
	return fault.Unavailable.Errorf("watch: %w", err)
}

// tell passes on one change unless it is known already.
func (w *watch) tell(ctx context.Context, l WatchLine) (ref estate.Ref, ok bool, err error) {
	var head estate.Head
	if err := json.Unmarshal(l.Object, &head); err != nil {
		return ref, false, fault.Internal.Errorf("watch: %w", err)
	}
	ref = head.Ref()
	old := w.seen[ref]
	if l.Type == Deleted {
		if old == nil {
			return ref, true, nil
		}
		delete(w.seen, ref)
		return ref, w.send(ctx, Event{Type: Gone, Object: old}), nil
	}
	if old != nil && old.Header().Metadata.Version >= head.Metadata.Version && old.Header().Metadata.UID == head.Metadata.UID {
		return ref, true, nil
	}
	k, err := known(head.Kind)
	if err != nil {
		return ref, true, nil // a newer plane knows more kinds
	}
	r := k.New()
	if err := json.Unmarshal(l.Object, r); err != nil {
		return ref, false, fault.Internal.Errorf("watch %s: %w", ref, err)
	}
	w.seen[ref] = r
	return ref, w.send(ctx, Event{Type: Is, Object: r}), nil
}

// forget tells what a fresh listing no longer has.
func (w *watch) forget(ctx context.Context, told map[estate.Ref]bool) bool {
	for ref, old := range w.seen {
		if !told[ref] {
			delete(w.seen, ref)
			if !w.send(ctx, Event{Type: Gone, Object: old}) {
				return false
			}
		}
	}
	return true
}

func (w *watch) send(ctx context.Context, e Event) bool {
	select {
	case w.out <- e:
		return true
	case <-ctx.Done():
		return false
	}
}
