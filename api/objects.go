package api

import (
	"context"
	"encoding/json"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// Write says under which conditions a write happens.
type Write struct {
	Version int64 // only if the object has this version; any when 0
	Create  bool  // only if the object does not exist
	DryRun  bool  // check, write nothing
}

func (w Write) request(method, path string, body any) request {
	r := request{method: method, path: path, body: body, header: http.Header{}, query: url.Values{}}
	if w.Version != 0 {
		r.header.Set("If-Match", ETag(w.Version))
	}
	if w.Create {
		r.header.Set("If-None-Match", "*")
	}
	if w.DryRun {
		r.query.Set("dryRun", "true")
	}
	return r
}

// Filter picks objects of a listing.
type Filter struct {
	Project string            // all projects when empty
	Labels  map[string]string // every one must match
}

func (f Filter) query() url.Values {
	q := url.Values{}
	if len(f.Labels) > 0 {
		var parts []string
		for _, k := range slices.Sorted(maps.Keys(f.Labels)) {
			parts = append(parts, k+"="+f.Labels[k])
		}
		q.Set("labels", strings.Join(parts, ","))
	}
	return q
}

// Get returns the object. An absent one, or one the caller may not see, is
// fault.NotFound.
func Get[T any](ctx context.Context, c *Client, project, name string) (*T, error) {
	k := estate.KindOf[T]()
	if k.Global {
		project = ""
	}
	t := new(T)
	_, err := c.do(ctx, request{method: http.MethodGet, path: Path(estate.Ref{Kind: k.Kind, Project: project, Name: name})}, t)
	if err != nil {
		return nil, err
	}
	return t, nil
}

// Load is Get for a kind known only when the program runs.
func (c *Client) Load(ctx context.Context, ref estate.Ref) (estate.Resource, error) {
	k, err := known(ref.Kind)
	if err != nil {
		return nil, err
	}
	r := k.New()
	if _, err := c.do(ctx, request{method: http.MethodGet, path: Path(ref)}, r); err != nil {
		return nil, err
	}
	return r, nil
}

// List returns the objects that the filter picks, in order of project and
// name, and the version to watch from.
func List[T any](ctx context.Context, c *Client, f Filter) ([]*T, int64, error) {
	rs, version, err := c.ListKind(ctx, estate.KindOf[T]().Kind, f)
	if err != nil {
		return nil, 0, err
	}
	ts := make([]*T, len(rs))
	for i, r := range rs {
		ts[i] = any(r).(*T)
	}
	return ts, version, nil
}

// ListKind is List for a kind known only when the program runs.
func (c *Client) ListKind(ctx context.Context, kind estate.Kind, f Filter) ([]estate.Resource, int64, error) {
	k, err := known(kind)
	if err != nil {
		return nil, 0, err
	}
	var all []estate.Resource
	var version int64
	q := f.query()
	for {
		var page Page
		if _, err := c.do(ctx, request{method: http.MethodGet, path: ListPath(k, f.Project), query: q}, &page); err != nil {
			return nil, 0, err
		}
		for _, raw := range page.Items {
			r := k.New()
			if err := json.Unmarshal(raw, r); err != nil {
				return nil, 0, fault.Internal.Errorf("list %s: %w", k.Plural, err)
			}
			all = append(all, r)
		}
		if version == 0 {
			version = page.Version // of the first page: what changed since is told again
		}
		if page.Continue == "" {
			return all, version, nil
		}
		q.Set("continue", page.Continue)
	}
}

// Put creates the object or replaces its labels and spec, and fills r with
// what is stored now. The status is not changed; use PutStatus.
func (c *Client) Put(ctx context.Context, r estate.Resource, w Write) error {
	return c.write(ctx, w.request(http.MethodPut, Path(r.Header().Ref()), r), r)
}

// PutStatus replaces the status of an object that exists, and fills r with
// what is stored now. The spec is not changed. Only agents and administrators may.
func (c *Client) PutStatus(ctx context.Context, r estate.Resource, w Write) error {
	return c.write(ctx, w.request(http.MethodPut, Path(r.Header().Ref())+"/status", r), r)
}

func (c *Client) write(ctx context.Context, req request, r estate.Resource) error {
	var data []byte
	if _, err := c.do(ctx, req, &data); err != nil {
		return err
	}
	return c.refill(r, data)
}

// refill decodes into a fresh object first, so that nothing old shines through.
func (c *Client) refill(r estate.Resource, data []byte) error {
	k, err := known(r.Header().Kind)
	if err != nil {
		return err
	}
	fresh := k.New()
	if err := json.Unmarshal(data, fresh); err != nil {
		return fault.Internal.Errorf("%s: the answer is not what it should be: %w", r.Header().Ref(), err)
	}
	assign(r, fresh)
	return nil
}

// Delete asks for the object to be deleted. An absent one is fault.NotFound;
// one that others refer to is fault.Conflict. An object with finalizers goes
// when the last of them is gone.
func (c *Client) Delete(ctx context.Context, ref estate.Ref, w Write) error {
	_, err := c.do(ctx, w.request(http.MethodDelete, Path(ref), nil), nil)
	return err
}

// Modify reads the object, changes it and writes labels and spec back, again
// when somebody else was faster. A change that changes nothing writes nothing.
func Modify[T any](ctx context.Context, c *Client, project, name string, change func(*T) error) (*T, error) {
	return modify(ctx, c, estate.Ref{Project: project, Name: name}, change, c.Put)
}

// ModifyStatus is Modify for the status.
func ModifyStatus[T any](ctx context.Context, c *Client, project, name string, change func(*T) error) (*T, error) {
	return modify(ctx, c, estate.Ref{Project: project, Name: name}, change, c.PutStatus)
}

func modify[T any](ctx context.Context, c *Client, ref estate.Ref, change func(*T) error, put func(context.Context, estate.Resource, Write) error) (*T, error) {
	for try := 0; ; try++ {
		t, err := Get[T](ctx, c, ref.Project, ref.Name)
		if err != nil {
			return nil, err
		}
		before, err := json.Marshal(t)
		if err != nil {
			return nil, err
		}
		if err := change(t); err != nil {
			return nil, err
		}
		after, err := json.Marshal(t)
		if err != nil || string(after) == string(before) {
			return t, err
		}
		r := any(t).(estate.Resource)
		err = put(ctx, r, Write{Version: r.Header().Metadata.Version})
		if fault.KindOf(err) != fault.Conflict || err == nil || try >= 20 {
			return t, err
		}
		if !sleep(ctx, rand.N(5*time.Millisecond)) {
			return nil, ctx.Err()
		}
	}
}

func known(kind estate.Kind) (estate.KindInfo, error) {
	k, ok := estate.KindNamed(string(kind))
	if !ok {
		return k, fault.Invalid.Errorf("%q is not a kind", kind)
	}
	return k, nil
}

// ParseETag returns the version of an entity tag.
func ParseETag(tag string) (int64, error) {
	s, err := strconv.Unquote(strings.TrimPrefix(strings.TrimSpace(tag), "W/"))
	if err == nil {
		var v int64
		if v, err = strconv.ParseInt(s, 10, 64); err == nil && v > 0 {
			return v, nil
		}
	}
	return 0, fault.Invalid.Errorf("%q is not an entity tag of ours; send back the ETag of the answer", tag)
}
