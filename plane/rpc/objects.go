package rpc

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"consort.dev/consort/api"
	"consort.dev/consort/audit"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/internal/near"
	"consort.dev/consort/plane/store"
)

// Sizes of a page of a listing.
const (
	usualPage   = 500
	largestPage = 1000
)

// get serves one object.
func (c *call) get() error {
	ref := c.ref()
	if err := c.allow("get", ref); err != nil {
		return err
	}
	r, err := c.Store.Load(c.r.Context(), ref)
	if err != nil {
		return err
	}
	return c.replyObject(http.StatusOK, r)
}

// replyObject answers with the object and its entity tag.
func (c *call) replyObject(status int, r estate.Resource) error {
	tag := api.ETag(r.Header().Metadata.Version)
	c.w.Header().Set("ETag", tag)
	if c.r.Method == http.MethodGet && c.r.Header.Get("If-None-Match") == tag {
		c.w.WriteHeader(http.StatusNotModified)
		return nil
	}
	return c.reply(status, r)
}

// list serves a page of the objects the caller may see, or a watch of them.
func (c *call) list() error {
	q := c.r.URL.Query()
	project := c.r.PathValue("project")
	if q.Get("watch") == "true" {
		return c.follow(watchOf{kinds: []estate.Kind{c.route.kind.Kind}, project: project, version: q.Get("version"), labels: q.Get("labels")})
	}
	limit, after, err := paging(q.Get("limit"), q.Get("continue"))
	if err != nil {
		return err
	}
	match, err := selector(q.Get("labels"))
	if err != nil {
		return err
	}
	page := api.Page{Items: []json.RawMessage{}}
	for more := true; more && len(page.Items) < limit; {
		rs, revision, left, err := c.Store.Page(c.r.Context(), c.route.kind.Kind, project, after, limit)
		if err != nil {
			return err
		}
		if page.Version == 0 {
			page.Version = revision
		}
		more = left
		for i, r := range rs {
			after = store.Cursor(r.Header().Ref())
			if !match(r.Header().Metadata.Labels) || c.allow("get", r.Header().Ref()) != nil {
				continue
			}
			raw, err := json.Marshal(r)
			if err != nil {
				return fault.Internal.Errorf("list: %w", err)
			}
			if page.Items = append(page.Items, raw); len(page.Items) == limit {
				more = more || i < len(rs)-1
				break
			}
		}
		if more && len(page.Items) == limit {
			page.Continue = base64.RawURLEncoding.EncodeToString([]byte(after))
		}
	}
	return c.reply(http.StatusOK, page)
}

func paging(limit, token string) (int, string, error) {
	n := usualPage
	if limit != "" {
		v, err := strconv.Atoi(limit)
		if err != nil || v < 1 {
			return 0, "", fault.Invalid.Errorf("limit %q is not a number from 1 to %d", limit, largestPage)
		}
		n = min(v, largestPage)
	}
	after, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return 0, "", fault.Invalid.Errorf("continue %q is not what a listing gave out; begin again without it", token)
	}
	return n, string(after), nil
}

// selector returns what decides whether labels match "a=b,c=d"; a key alone
// matches any value.
func selector(text string) (func(map[string]string) bool, error) {
	type want struct {
		key, value string
		any        bool
	}
	var wants []want
	for part := range strings.SplitSeq(text, ",") {
		if part == "" {
			continue
		}
		k, v, equals := strings.Cut(part, "=")
		if k == "" {
			return nil, fault.Invalid.Errorf("labels %q: write key=value, several with commas between", text)
		}
		wants = append(wants, want{k, v, !equals})
	}
	return func(labels map[string]string) bool {
		for _, w := range wants {
			if v, ok := labels[w.key]; !ok || !w.any && v != w.value {
				return false
			}
		}
		return true
	}, nil
}

// conditions are what the request's header demands of the stored version.
type conditions struct {
	version int64 // must be this; any when 0
	absent  bool  // must not be there
}

func (c *call) conditions() (conditions, error) {
	var want conditions
	if m := c.r.Header.Get("If-Match"); m != "" && m != "*" {
		v, err := api.ParseETag(m)
		if err != nil {
			return want, err
		}
		want.version = v
	}
	switch n := c.r.Header.Get("If-None-Match"); n {
	case "":
	case "*":
		want.absent = true
	default:
		return want, fault.Invalid.Errorf("If-None-Match on a write can only be *, not %q", n)
	}
	return want, nil
}

// holds returns nil when what is stored, nil for nothing, is what was demanded.
func (want conditions) holds(ref estate.Ref, stored estate.Resource) error {
	switch {
	case want.absent && stored != nil:
		return fault.Conflict.Errorf("create %s: there is one already", ref)
	case want.version != 0 && stored == nil:
		return fault.Conflict.Errorf("change %s: it is gone", ref)
	case want.version != 0 && stored.Header().Metadata.Version != want.version:
		return fault.Conflict.Errorf("change %s: it has changed since version %d; read it again", ref, want.version)
	}
	return nil
}

func (c *call) dryRun() bool { return c.r.URL.Query().Get("dryRun") == "true" }

// put creates the object, or replaces its labels and spec.
func (c *call) put() error {
	want, err := c.conditions()
	if err != nil {
		return err
	}
	given, err := c.givenObject()
	if err != nil {
		return err
	}
	return c.change(want, func(stored estate.Resource) (estate.Resource, error) {
		if stored == nil {
			return fresh(given)
		}
		next, err := clone(stored)
		if err != nil {
			return nil, err
		}
		return next, replaceSpec(next, given)
	})
}

// givenObject reads the request's body as the object the path names.
func (c *call) givenObject() (estate.Resource, error) {
	data, err := c.body()
	if err != nil {
		return nil, err
	}
	ref := c.ref()
	given := c.route.kind.NewNamed(ref.Project, ref.Name)
	if ps := strict(data, "", given); len(ps) > 0 {
		return nil, invalid(ref.String(), ps)
	}
	h := given.Header()
	var ps []estate.Problem
	same := func(path, is, want string) {
		if is != want {
			ps = append(ps, estate.Problem{Path: path, Text: fmt.Sprintf("%q is not what the path says: %q", is, want)})
		}
	}
	same("kind", string(h.Kind), string(ref.Kind))
	same("metadata.name", h.Metadata.Name, ref.Name)
	same("metadata.project", h.Metadata.Project, ref.Project)
	if len(ps) > 0 {
		return nil, invalid(ref.String(), ps)
	}
	return given, nil
}

// change reads what is stored, works out what should be, checks it and writes
// it, again when somebody else was faster and the request does not mind.
func (c *call) change(want conditions, next func(stored estate.Resource) (estate.Resource, error)) error {
	ref := c.ref()
	for try := 0; ; try++ {
		stored, err := c.stored(ref)
		if err != nil {
			return err
		}
		verb := "create"
		if stored != nil {
			verb = "get"
		}
		if err := c.allow(verb, ref); err != nil {
			return err
		}
		if err := want.holds(ref, stored); err != nil {
			return err
		}
		r, err := next(stored)
		if err != nil {
			return err
		}
		set := newSet(c)
		if err := set.add(r, stored, ""); err != nil {
			return err
		}
		if err := set.check(); err != nil {
			return err
		}
		status := http.StatusOK
		if stored == nil {
			status = http.StatusCreated
		}
		if c.dryRun() {
			return c.replyObject(status, r)
		}
		err = set.commit()
		if err == nil {
			return c.replyObject(status, r)
		}
		raced := fault.KindOf(err) == fault.Conflict || fault.KindOf(err) == fault.Exists
		if !raced || want.version != 0 || want.absent || try >= 20 {
			return asPrecondition(want, err)
		}
	}
}

// asPrecondition makes losing a race what the caller's condition makes it.
func asPrecondition(want conditions, err error) error {
	if want.absent && fault.KindOf(err) == fault.Exists {
		return fault.Conflict.Errorf("%w", err)
	}
	return err
}

// stored returns the object, or nil when there is none.
func (c *call) stored(ref estate.Ref) (estate.Resource, error) {
	r, err := c.Store.Load(c.r.Context(), ref)
	if errors.Is(err, fault.NotFound) {
		return nil, nil
	}
	return r, err
}

// patch changes the fields of labels and spec that a merge patch mentions.
func (c *call) patch() error {
	want, err := c.conditions()
	if err != nil {
		return err
	}
	p, err := c.mergePatch()
	if err != nil {
		return err
	}
	if ps := patchable(p); len(ps) > 0 {
		return invalid(c.ref().String(), ps)
	}
	return c.change(want, func(stored estate.Resource) (estate.Resource, error) {
		if stored == nil {
			return nil, fault.NotFound.Errorf("there is no %s", c.ref())
		}
		return patched(stored, p, replaceSpec)
	})
}

func (c *call) mergePatch() (map[string]any, error) {
	data, err := c.body()
	if err != nil {
		return nil, err
	}
	v, err := decodeAny(data)
	if err != nil {
		return nil, invalid(c.ref().String(), []estate.Problem{{Text: "this is not JSON: " + err.Error()}})
	}
	p, ok := v.(map[string]any)
	if !ok {
		return nil, invalid(c.ref().String(), []estate.Problem{{Text: "a merge patch is an object, not " + describe(v)}})
	}
	return p, nil
}

// patchable returns what a patch may not mention: all but labels and spec.
func patchable(p map[string]any) []estate.Problem {
	var ps []estate.Problem
	for _, k := range sortedKeys(p) {
		switch k {
		case "spec", "apiVersion", "kind":
		case "metadata":
			m, _ := p[k].(map[string]any)
			for _, f := range sortedKeys(m) {
				if f != "labels" {
					ps = append(ps, estate.Problem{Path: "metadata." + f, Text: "only labels can be patched here"})
				}
			}
		case "status":
			ps = append(ps, estate.Problem{Path: k, Text: "the status is written at the object's path with /status"})
		default:
			ps = append(ps, estate.Problem{Path: k, Text: "there is no such field" + near.DidYouMean(k, []string{"metadata", "spec"}, "there are")})
		}
	}
	return ps
}

// patched returns what is stored changed by the patch, as far as take takes it.
func patched(stored estate.Resource, p map[string]any, take func(next, given estate.Resource) error) (estate.Resource, error) {
	was, err := tree(stored)
	if err != nil {
		return nil, fault.Internal.Errorf("patch: %w", err)
	}
	data, err := json.Marshal(merge(was, p))
	if err != nil {
		return nil, fault.Internal.Errorf("patch: %w", err)
	}
	k, _ := estate.KindNamed(string(stored.Header().Kind))
	given := k.New()
	if ps := strict(data, "", given); len(ps) > 0 {
		return nil, invalid(stored.Header().Ref().String(), ps)
	}
	next, err := clone(stored)
	if err != nil {
		return nil, err
	}
	return next, take(next, given)
}

// remove asks for the object to be deleted.
func (c *call) remove() error {
	ref := c.ref()
	want, err := c.conditions()
	if err != nil {
		return err
	}
	if err := c.allow("delete", ref); err != nil {
		return err
	}
	stored, err := c.Store.Load(c.r.Context(), ref)
	if err != nil {
		return err
	}
	if err := want.holds(ref, stored); err != nil {
		return err
	}
	if err := c.unused(ref); err != nil {
		return err
	}
	if !c.dryRun() {
		err := audit.Do(c.r.Context(), c.Audit, c.doing(kindly(ref.Kind, "delete"), ref.String()), func(map[string]string) error {
			return c.Store.Delete(c.r.Context(), ref, want.version)
		})
		if err != nil {
			return err
		}
	}
	return c.reply(http.StatusOK, api.Empty{})
}
