package rpc

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/store"
)

func TestAnObjectIsCreatedReadChangedAndDeleted(t *testing.T) {
	p := start(t)
	c, ctx := p.as("root"), t.Context()
	if err := c.Put(ctx, project("p"), api.Write{}); err != nil {
		t.Fatal(err)
	}
	n := network("lan")
	if err := c.Put(ctx, n, api.Write{Create: true}); err != nil {
		t.Fatal(err)
	}
	if n.Metadata.UID == "" || n.Metadata.Version == 0 || n.Metadata.Generation != 1 {
		t.Errorf("created: got %+v, want uid, version and generation", n.Metadata)
	}
	got, err := api.Get[estate.Network](ctx, c, "p", "lan")
	if err != nil || got.Spec.Subnet != "10.77.1.0/24" {
		t.Fatalf("get: %+v, %v", got, err)
	}
	got.Spec.Egress = true
	if err := c.Put(ctx, got, api.Write{Version: got.Metadata.Version}); err != nil || got.Metadata.Generation != 2 || got.Metadata.UID != n.Metadata.UID {
		t.Errorf("put: got %+v, %v", got, err)
	}
	if err := c.Put(ctx, network("lan"), api.Write{Create: true}); !errors.Is(err, fault.Conflict) {
		t.Errorf("create again: got %v, want conflict", err)
	}
	if err := c.Delete(ctx, n.Ref(), api.Write{Version: 1}); !errors.Is(err, fault.Conflict) {
		t.Errorf("delete an older version: got %v, want conflict", err)
	}
	if err := c.Delete(ctx, n.Ref(), api.Write{}); err != nil {
		t.Error(err)
	}
	if _, err := api.Get[estate.Network](ctx, c, "p", "lan"); !errors.Is(err, fault.NotFound) {
		t.Errorf("get: got %v, want not-found", err)
	}
}

// Otherwise a machine that people made would run on when it is deleted, and the
// data of a volume would stay.
func TestWhatLiesOnAHostWaitsForItsAgentWhenDeleted(t *testing.T) {
	p := start(t)
	c, ctx := p.as("root"), t.Context()
	if err := c.Put(ctx, project("p"), api.Write{}); err != nil {
		t.Fatal(err)
	}
	for _, made := range []estate.Resource{
		&estate.Volume{Head: head("Volume", "p", "v"), Spec: estate.VolumeSpec{Size: estate.GiB}},
		&estate.Machine{Head: head("Machine", "p", "m"), Spec: estate.MachineSpec{Power: estate.Off, Hardware: estate.Hardware{
			CPUs: 1, Memory: estate.GiB, Disks: []estate.Disk{{Name: "root", Image: estate.Digest("sha256:" + strings.Repeat("0", 64))}},
		}}},
	} {
		if err := c.Put(ctx, made, api.Write{Create: true}); err != nil {
			t.Fatal(err)
		}
		ref := made.Header().Ref()
		if err := c.Delete(ctx, ref, api.Write{}); err != nil {
			t.Fatal(err)
		}
		if err := c.LetGo(ctx, ref, estate.AgentFinalizer); err != nil {
			t.Fatal(err)
		}
		if m := made.Header().Metadata; !slices.Equal(m.Finalizers, []string{estate.AgentFinalizer}) {
			t.Errorf("%s is held by %q, want its agent", ref, m.Finalizers)
		}
	}
	if _, err := api.Get[estate.Volume](ctx, c, "p", "v"); !errors.Is(err, fault.NotFound) {
		t.Errorf("get: got %v, want not-found", err)
	}
}

func TestAWrongBodyIsRefusedAtItsField(t *testing.T) {
	p := start(t)
	p.office()
	const good = `{"apiVersion":"consort.dev/v1","kind":"Network","metadata":{"name":"x","project":"p"},"spec":{"subnet":"10.1.0.0/24"}}`
	for name, c := range map[string]struct{ body, path, text string }{
		"unknown field":   {strings.Replace(good, "subnet", "subnett", 1), "spec.subnett", "did you mean subnet?"},
		"wrong case":      {strings.Replace(good, "subnet", "Subnet", 1), "spec.Subnet", "did you mean subnet?"},
		"wrong type":      {strings.Replace(good, `"10.1.0.0/24"`, "7", 1), "spec.subnet", "a text is expected, not the number 7"},
		"broken rule":     {strings.Replace(good, "10.1.0.0/24", "10.1.0.9/24", 1), "spec.subnet", "has host bits set"},
		"another name":    {strings.Replace(good, `"x"`, `"y"`, 1), "metadata.name", "is not what the path says"},
		"another kind":    {strings.Replace(good, "Network", "Volume", 1), "kind", "is not what the path says"},
		"not json":        {"{", "", "this is not JSON"},
		"more than one":   {good + good, "", "something follows its end"},
		"unknown version": {strings.Replace(good, "dev/v1", "dev/v9", 1), "apiVersion", "use consort.dev/v1"},
		"not an object":   {strings.Replace(good, `{"subnet":"10.1.0.0/24"}`, `[]`, 1), "spec", "an object is expected, not a list"},
	} {
		r := p.curl("root", "PUT", "/v1/projects/p/networks/x", c.body)
		r.want(t, name, http.StatusUnprocessableEntity, c.text)
		if len(r.p.Problems) == 0 || r.p.Problems[0].Path != c.path {
			t.Errorf("%s: got problems %v, want one at %q", name, r.p.Problems, c.path)
		}
		if r.p.Kind != "invalid" || r.p.Type != "/problems/invalid" || r.header.Get("Content-Type") != api.ProblemType {
			t.Errorf("%s: got kind %q, type %q, %q", name, r.p.Kind, r.p.Type, r.header.Get("Content-Type"))
		}
	}
	p.curl("root", "GET", "/v1/projects/p/networks/x", "").want(t, "nothing was stored", http.StatusNotFound)
	p.curl("root", "PUT", "/v1/projects/p/networks/x", good).want(t, "the right one", http.StatusCreated)
}

func TestALinkToNothingIsRefusedWithTheNearestName(t *testing.T) {
	p := start(t)
	p.office()
	b := blueprint("b")
	b.Spec.Image = "debain"
	err := p.as("root").Put(t.Context(), b, api.Write{})
	if ps := api.Problems(err); len(ps) != 1 || ps[0].Path != "spec.image" || ps[0].Text != `there is no image "debain"; did you mean debian?` {
		t.Errorf("got %v, want a problem at spec.image", err)
	}
	n := network("x")
	n.Metadata.Project = "pp"
	err = p.as("root").Put(t.Context(), n, api.Write{})
	if ps := api.Problems(err); len(ps) != 1 || ps[0].Path != "metadata.project" {
		t.Errorf("no project: got %v, want a problem at metadata.project", err)
	}
}

func TestOfTwoWritersWithOneVersionOneWins(t *testing.T) {
	p := start(t)
	p.office()
	c := p.as("root")
	n, err := api.Get[estate.Network](t.Context(), c, "p", "lan")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	results := make([]reply, 2)
	for i := range results {
		wg.Go(func() {
			body := fmt.Sprintf(`{"metadata":{"labels":{"by":"%d"}}}`, i)
			results[i] = p.curl("root", "PATCH", "/v1/projects/p/networks/lan", body, "Content-Type", api.MergePatch, "If-Match", api.ETag(n.Metadata.Version))
		})
	}
	wg.Wait()
	if a, b := results[0].status, results[1].status; a+b != 200+412 {
		t.Errorf("got %d and %d, want one 200 and one 412", a, b)
	}
}

func TestWritersWithoutAVersionAllGetThrough(t *testing.T) {
	p := start(t)
	p.office()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			body := fmt.Sprintf(`{"metadata":{"labels":{"k%d":"v"}}}`, i)
			p.curl("root", "PATCH", "/v1/projects/p/networks/lan", body).want(t, "patch", http.StatusOK)
		})
	}
	wg.Wait()
	n, err := store.Get[estate.Network](t.Context(), p.store, "p", "lan")
	if err != nil || len(n.Metadata.Labels) != 8 {
		t.Errorf("got labels %v, %v; want all eight", n.Metadata.Labels, err)
	}
}

func TestSpecAndStatusAreWrittenApart(t *testing.T) {
	p := start(t)
	p.office()
	c, ctx := p.as("root"), t.Context()
	h, err := api.ModifyStatus(ctx, c, "", "a", func(h *estate.Hypervisor) error {
		h.Status.Product, h.Spec.Drain = "Iron 1", true
		return nil
	})
	if err != nil || h.Status.Product != "Iron 1" || h.Spec.Drain {
		t.Fatalf("status write: got %+v, %v; want the status only", h, err)
	}
	h.Spec.Drain, h.Status.Product = true, "Iron 2"
	if err := c.Put(ctx, h, api.Write{}); err != nil || !h.Spec.Drain || h.Status.Product != "Iron 1" {
		t.Errorf("spec write: got %+v, %v; want the spec only", h, err)
	}
	patched := p.curl("root", "PATCH", api.Path(h.Ref())+"/status", `{"status":{"accelerator":"steam"}}`, "Content-Type", api.MergePatch)
	h, err = api.Get[estate.Hypervisor](ctx, c, "", "a")
	if patched.status != 200 || err != nil || h.Status.Accelerator != "steam" || h.Status.Product != "Iron 1" {
		t.Errorf("status patch: got %d, then %+v, %v", patched.status, h, err)
	}
	if h.Metadata.Generation != 2 {
		t.Errorf("generation: got %d, want 2: one spec write", h.Metadata.Generation)
	}
	refused := p.curl("root", "PATCH", api.Path(h.Ref()), `{"status":{}}`, "Content-Type", api.MergePatch)
	if ps := refused.p.Problems; len(ps) != 1 || ps[0].Path != "status" {
		t.Errorf("status in a spec patch: got %+v, want a problem", refused)
	}
	if err := p.as("oli").PutStatus(ctx, desktop("desk", "ana"), api.Write{}); !errors.Is(err, fault.Denied) {
		t.Errorf("a person writes a status: got %v, want denied", err)
	}
	err = p.as("agent-a").Put(ctx, desktop("desk", "ben"), api.Write{})
	if !errors.Is(err, fault.Denied) {
		t.Errorf("an agent writes a spec: got %v, want denied", err)
	}
}

func TestADryRunSaysAndWritesNothing(t *testing.T) {
	p := start(t)
	p.office()
	c, ctx := p.as("root"), t.Context()
	n := network("dry")
	if err := c.Put(ctx, n, api.Write{DryRun: true}); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(ctx, image("debian").Ref(), api.Write{DryRun: true}); !errors.Is(err, fault.Conflict) {
		t.Errorf("dry delete of what is used: got %v, want conflict", err)
	}
	if err := c.Delete(ctx, desktop("desk", "").Ref(), api.Write{DryRun: true}); err != nil {
		t.Error(err)
	}
	bad := network("bad")
	bad.Spec.Subnet = "x"
	if err := c.Put(ctx, bad, api.Write{DryRun: true}); !errors.Is(err, fault.Invalid) {
		t.Errorf("dry run of a wrong one: got %v, want invalid", err)
	}
	if _, err := p.store.Load(ctx, n.Ref()); !errors.Is(err, fault.NotFound) {
		t.Errorf("the dry run stored it: %v", err)
	}
	if _, err := p.store.Load(ctx, desktop("desk", "").Ref()); err != nil {
		t.Errorf("the dry run deleted it: %v", err)
	}
}

func TestAListingComesInPagesAndByLabels(t *testing.T) {
	p := start(t)
	c, ctx := p.as("root"), t.Context()
	set := []estate.Resource{project("p"), project("q")}
	for i := range 7 {
		n := network(fmt.Sprintf("n%d", i))
		n.Metadata.Labels = map[string]string{"odd": fmt.Sprint(i % 2)}
		set = append(set, n)
	}
	other := network("other")
	other.Metadata.Project = "q"
	if _, err := c.Apply(ctx, append(set, other), false); err != nil {
		t.Fatal(err)
	}
	var names []string
	next := ""
	for pages := 0; pages == 0 || next != ""; pages++ {
		var page struct {
			Items    []estate.Network
			Version  int64
			Continue string
		}
		r := p.curl("root", "GET", "/v1/projects/p/networks?limit=3&continue="+next, "")
		if err := jsonInto(r.body, &page); err != nil || len(page.Items) > 3 || pages > 3 || page.Version == 0 {
			t.Fatalf("page %d: %v: %s", pages, err, r.body)
		}
		for _, n := range page.Items {
			names = append(names, n.Metadata.Name)
		}
		next = page.Continue
	}
	if got := strings.Join(names, " "); got != "n0 n1 n2 n3 n4 n5 n6" {
		t.Errorf("pages: got %s", got)
	}
	odd, _, err := api.List[estate.Network](ctx, c, api.Filter{Project: "p", Labels: map[string]string{"odd": "1"}})
	if err != nil || len(odd) != 3 {
		t.Errorf("by label: got %d, %v; want 3", len(odd), err)
	}
	all, _, err := api.List[estate.Network](ctx, c, api.Filter{})
	if err != nil || len(all) != 8 {
		t.Errorf("all projects: got %d, %v; want 8", len(all), err)
	}
	p.curl("root", "GET", "/v1/networks?limit=x", "").want(t, "limit", http.StatusUnprocessableEntity, "is not a number")
	p.curl("root", "GET", "/v1/networks?continue=*", "").want(t, "continue", http.StatusUnprocessableEntity, "begin again")
}

func TestWhatACallerMayNotSeeIsNotThere(t *testing.T) {
	p := start(t)
	p.office()
	ctx := t.Context()
	if _, err := api.Get[estate.Desktop](ctx, p.as("ana"), "p", "desk"); err != nil {
		t.Errorf("ana's own: %v", err)
	}
	if _, err := api.Get[estate.Desktop](ctx, p.as("ben"), "p", "desk"); !errors.Is(err, fault.NotFound) {
		t.Errorf("ben reads ana's: got %v, want not-found", err)
	}
	for who, want := range map[string]int{"ana": 1, "ben": 0, "root": 1} {
		ds, _, err := api.List[estate.Desktop](ctx, p.as(who), api.Filter{Project: "p"})
		if err != nil || len(ds) != want {
			t.Errorf("%s lists %d desktops, %v; want %d", who, len(ds), err, want)
		}
	}
	p.curl("", "GET", "/v1/projects/p/desktops", "").want(t, "nobody", http.StatusUnauthorized, "sign in")
	err := p.as("ben").Put(ctx, desktop("desk", "ben"), api.Write{Create: true})
	if !errors.Is(err, fault.NotFound) {
		t.Errorf("ben creates over ana's: got %v, want not-found and no word that it exists", err)
	}
}

func TestAPersonTurnsTheirDesktopOnButDoesNotRebuildIt(t *testing.T) {
	p := start(t)
	p.office()
	ctx, ref := t.Context(), desktop("desk", "").Ref()
	patch := func(who, body string) int {
		return p.curl(who, "PATCH", api.Path(ref), body).status
	}
	for _, c := range []struct {
		who, body string
		want      int
	}{
		{"ana", `{"spec":{"power":"on","title":"Mine","resets":1}}`, 200},
		{"ana", `{"spec":{"person":"ben"}}`, 403},
		{"ana", `{"metadata":{"labels":{"a":"b"}}}`, 403},
		{"ben", `{"spec":{"power":"off"}}`, 404},
		{"oli", `{"spec":{"person":"ben"}}`, 200},
	} {
		if got := patch(c.who, c.body); got != c.want {
			t.Errorf("%s sends %s: got %d, want %d", c.who, c.body, got, c.want)
		}
	}
	d, err := store.Get[estate.Desktop](ctx, p.store, "p", "desk")
	if err != nil || d.Spec.Power != estate.On || d.Spec.Person != "ben" {
		t.Errorf("got %+v, %v", d.Spec, err)
	}
}

func TestWhatIsUsedCannotBeDeleted(t *testing.T) {
	p := start(t)
	p.office()
	ctx, c := t.Context(), p.as("root")
	err := c.Delete(ctx, blueprint("office").Ref(), api.Write{})
	if !errors.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "desktop/p/desk (spec.blueprint)") {
		t.Errorf("got %v, want a conflict that names the desktop", err)
	}
	if err := c.Delete(ctx, project("p").Ref(), api.Write{}); !errors.Is(err, fault.Conflict) {
		t.Errorf("a project with objects: got %v, want conflict", err)
	}
	if err := c.Delete(ctx, desktop("desk", "").Ref(), api.Write{}); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(ctx, blueprint("office").Ref(), api.Write{}); err != nil {
		t.Errorf("unused now: %v", err)
	}
}

func TestAnObjectGoesWithItsLastFinalizer(t *testing.T) {
	p := start(t)
	p.office()
	ctx, c := t.Context(), p.as("root")
	v := &estate.Volume{Head: head("Volume", "p", "home"), Spec: estate.VolumeSpec{Size: estate.GiB}}
	v.Metadata.Finalizers = []string{estate.AgentFinalizer, "lifecycle"}
	if err := p.store.Create(ctx, v); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(ctx, v.Ref(), api.Write{}); err != nil {
		t.Fatal(err)
	}
	got, err := api.Get[estate.Volume](ctx, c, "p", "home")
	if err != nil || got.Metadata.Deleting.IsZero() {
		t.Fatalf("got %+v, %v; want it deleting", got, err)
	}
	if err := c.LetGo(ctx, v.Ref(), estate.AgentFinalizer); err != nil {
		t.Error(err)
	}
	if _, err := p.store.Load(ctx, v.Ref()); err != nil {
		t.Errorf("one finalizer is left: %v", err)
	}
	if err := c.LetGo(ctx, v.Ref(), "lifecycle"); err != nil {
		t.Error(err)
	}
	if _, err := p.store.Load(ctx, v.Ref()); !errors.Is(err, fault.NotFound) {
		t.Errorf("after the last: got %v, want not-found", err)
	}
	if err := c.LetGo(ctx, v.Ref(), estate.AgentFinalizer); err != nil {
		t.Errorf("once more: %v", err)
	}
}

func TestWhatThePlaneWritesIntoASpecStays(t *testing.T) {
	p := start(t)
	p.office()
	ctx, c := t.Context(), p.as("root")
	v := &estate.Volume{Head: head("Volume", "p", "home"), Spec: estate.VolumeSpec{Size: estate.GiB, Holder: "m1"}}
	if err := c.Put(ctx, v, api.Write{}); len(api.Problems(err)) != 1 {
		t.Errorf("create with a holder: got %v, want a problem", err)
	}
	if err := p.store.Create(ctx, v); err != nil {
		t.Fatal(err)
	}
	want := &estate.Volume{Head: head("Volume", "p", "home"), Spec: estate.VolumeSpec{Size: estate.GiB, Person: "ana"}}
	res, err := c.Apply(ctx, []estate.Resource{want}, false)
	if err != nil || res.Results[0].Change != api.Changed {
		t.Fatalf("got %+v, %v", res, err)
	}
	got, err := store.Get[estate.Volume](ctx, p.store, "p", "home")
	if err != nil || got.Spec.Holder != "m1" || got.Spec.Person != "ana" {
		t.Errorf("got %+v, %v; want the new person and the old holder", got.Spec, err)
	}
}

func TestSizesOfHomesStayAsTheyAre(t *testing.T) {
	p := start(t)
	p.office()
	ctx, c := t.Context(), p.as("root")
	vol := &estate.Volume{Head: head("Volume", "p", "home"), Spec: estate.VolumeSpec{Size: estate.GiB}}
	office, err := api.Get[estate.Blueprint](ctx, c, "p", "office")
	if err != nil {
		t.Fatal(err)
	}
	office.Spec.Home = estate.GiB
	if _, err := c.Apply(ctx, []estate.Resource{vol, office}, false); err != nil {
		t.Fatalf("a first size: %v", err)
	}
	for size, wants := range map[estate.Bytes]string{estate.GiB / 2: "spec.size", 2 * estate.GiB: "spec.size spec.home"} {
		vol.Spec.Size, office.Spec.Home = size, size
		_, err := c.Apply(ctx, []estate.Resource{vol, office}, false)
		var got []string
		for _, p := range api.Problems(err) {
			got = append(got, p.Path[strings.LastIndex(p.Path, "spec."):])
		}
		if strings.Join(got, " ") != wants {
			t.Errorf("%s: got %v, want problems at %s", size, err, wants)
		}
	}
}
