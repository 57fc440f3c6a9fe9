package rpc

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/internal/near"
	"consort.dev/consort/plane/store"
)

// slowest is how long one line may take to reach the watcher.
const slowest = 30 * time.Second

// watchOf is what a watch is of.
type watchOf struct {
	kinds   []estate.Kind
	project string
	version string // resume after it; everything first when ""
	labels  string
}

// watch serves one watch of several kinds.
func (c *call) watch() error {
	q := c.r.URL.Query()
	of := watchOf{project: q.Get("project"), version: q.Get("version"), labels: q.Get("labels")}
	for name := range strings.SplitSeq(q.Get("kinds"), ",") {
		if name == "" {
			continue
		}
		k, ok := estate.KindNamed(name)
		if !ok {
			return fault.Invalid.Errorf("watch: %q is not a kind%s", name, near.DidYouMean(name, kindNames(), "there are"))
		}
		of.kinds = append(of.kinds, k.Kind)
	}
	if len(of.kinds) == 0 {
		return fault.Invalid.Errorf("watch: say what to watch, as ?kinds=Desktop,Session")
	}
	return c.follow(of)
}

// follower is a watch that is being served.
type follower struct {
	c     *call
	of    watchOf
	match func(map[string]string) bool
	sent  map[estate.Ref]bool // what the watcher has; how it is told what it no longer sees
	last  int64               // revision told up to
	lines *lines
}

// follow serves the watch until either side ends it.
func (c *call) follow(of watchOf) error {
	match, err := selector(of.labels)
	if err != nil {
		return err
	}
	if c.caller.Agent != "" && of.version != "" {
		// What it may see comes and goes with moves, and nobody knows any more what
		// it had: only a listing tells it what went meanwhile.
		return fault.Stale.Errorf("watch: an agent begins with everything; leave the version out")
	}
	f := &follower{c: c, of: of, match: match, sent: map[estate.Ref]bool{}, lines: newLines(c.w)}
	var initial []estate.Resource
	if of.version == "" {
		initial, err = f.listing()
	} else if f.last, err = strconv.ParseInt(of.version, 10, 64); err != nil || f.last < 1 {
		err = fault.Invalid.Errorf("watch: version %q is not a version; leave it out to begin with everything", of.version)
	}
	if err != nil {
		return err
	}
	ctx := c.r.Context()
	events, err := c.Store.Watch(ctx, f.last, of.kinds...)
	if err != nil {
		return err
	}
	if err := f.begin(initial); err != nil {
		return nil // the watcher has left
	}
	beat := time.NewTicker(c.Beat)
	defer beat.Stop()
	for {
		select {
		case e, ok := <-events:
			if !ok {
				return nil // it fell behind, or the store ended it; the watcher resumes
			}
			if err := f.tell(e); err != nil {
				return nil
			}
		case <-beat.C:
			if caller, err := c.Auth.Authenticate(c.r); err != nil || caller.Person != c.caller.Person {
				return nil // signed out
			}
			if f.lines.write(api.WatchLine{Type: api.Bookmark, Version: f.last}) != nil {
				return nil
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// listing returns everything there is, and sets the revision to go on from.
func (f *follower) listing() ([]estate.Resource, error) {
	var all []estate.Resource
	for _, k := range f.of.kinds {
		project := f.of.project
		if info, _ := estate.KindNamed(string(k)); info.Global {
			project = ""
		}
		rs, revision, _, err := f.c.Store.Page(f.c.r.Context(), k, project, "", 0)
		if err != nil {
			return nil, err
		}
		if f.last == 0 || revision < f.last {
			f.last = revision
		}
		all = append(all, rs...)
	}
	return all, nil
}

func (f *follower) begin(initial []estate.Resource) error {
	f.lines.begin()
	for _, r := range initial {
		if f.sees(r) {
			if err := f.line(api.Put, r.Header().Metadata.Version, r); err != nil {
				return err
			}
		}
	}
	if f.of.version != "" {
		return f.lines.flush()
	}
	return f.lines.write(api.WatchLine{Type: api.Bookmark, Version: f.last})
}

// sees reports whether the object is in the watch and the caller may see it.
func (f *follower) sees(r estate.Resource) bool {
	return f.inside(r) && f.match(r.Header().Metadata.Labels) && f.c.Auth.Sees(f.c.r.Context(), f.c.caller, r)
}

// inside reports whether the object is in the watched project.
func (f *follower) inside(r estate.Resource) bool {
	p := r.Header().Metadata.Project
	return f.of.project == "" || p == "" || p == f.of.project
}

// tell passes one change on, as far as the caller may know of it.
func (f *follower) tell(e store.Event) error {
	f.last = e.Revision
	ref := e.Object.Header().Ref()
	if !e.Deleted && f.sees(e.Object) {
		return f.line(api.Put, e.Revision, e.Object)
	}
	had := f.sent[ref]
	delete(f.sent, ref)
	// Of a watch that resumes nobody knows what it has; a deletion is told to
	// whoever could have seen the object.
	resumed := f.of.version != "" && e.Deleted && f.inside(e.Object) && f.couldSee(e.Object)
	if !had && !resumed {
		return nil
	}
	return f.line(api.Deleted, e.Revision, e.Object)
}

func (f *follower) couldSee(r estate.Resource) bool {
	c := f.c.caller
	switch o := r.(type) {
	case *estate.Desktop:
		return c.Admin || o.Spec.Person == c.Person
	case *estate.Session:
		return c.Admin || o.Spec.Person == c.Person
	}
	return c.Admin || c.Agent != "" || f.c.allow("get", r.Header().Ref()) == nil
}

func (f *follower) line(t api.WatchType, version int64, r estate.Resource) error {
	if t == api.Deleted {
		// No more than who it was: the caller may have lost the right to see it.
		k, _ := estate.KindNamed(string(r.Header().Kind))
		uid := r.Header().Metadata.UID
		r = k.NewNamed(r.Header().Metadata.Project, r.Header().Metadata.Name)
		r.Header().Metadata.UID = uid
	} else {
		f.sent[r.Header().Ref()] = true
	}
	raw, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return f.lines.write(api.WatchLine{Type: t, Version: version, Object: raw})
}

// lines is an answer that goes on, one JSON value a line.
type lines struct {
	w    http.ResponseWriter
	ctrl *http.ResponseController
}

func newLines(w http.ResponseWriter) *lines { return &lines{w, http.NewResponseController(w)} }

func (l *lines) begin() {
	l.w.Header().Set("Content-Type", api.NDJSON)
	l.w.Header().Set("X-Accel-Buffering", "no")
	_ = l.ctrl.SetReadDeadline(time.Time{})
	l.w.WriteHeader(http.StatusOK)
}

// write sends one line at once. A watcher that does not take it in time is
// given up.
func (l *lines) write(v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_ = l.ctrl.SetWriteDeadline(time.Now().Add(slowest))
	if _, err := l.w.Write(slices.Concat(data, []byte("\n"))); err != nil {
		return err
	}
	return l.flush()
}

func (l *lines) flush() error { return l.ctrl.Flush() }
