package auth_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/auth"
)

// matrix says what each role may do with one object of each kind: g get, c
// create, u update, d delete, n connect, r start, s status.
//
// ana has the desktop; bob's group is granted the application and the pool; olga operates
// the project; h1 is the agent of the host with ana's machine, h2 of another.
// eve has nothing.
var matrix = map[estate.Kind]map[string]string{
	"Project":      {"ana": "g", "bob": "g", "olga": "gu"},
	"Person":       {"ana": "g", "olga": "g"},
	"Group":        {"bob": "g", "olga": "g"},
	"Hypervisor":   {"olga": "g", "h1": "gcs"},
	"Context":      {"ana": "g", "bob": "g", "olga": "gcud", "h1": "gs", "h2": "gs"},
	"Network":      {"olga": "gcud", "h1": "gs", "h2": "gs"},
	"Image":        {"ana": "g", "bob": "g", "olga": "gcud", "h1": "gs", "h2": "gs"},
	"Application":  {"bob": "g", "olga": "gcud", "h1": "gs", "h2": "gs"},
	"ServiceLevel": {"olga": "gcud"},
	"Blueprint":    {"ana": "g", "bob": "g", "olga": "gcud"},
	"Volume":       {"ana": "g", "olga": "gcud", "h1": "gs", "h2": "g"},
	"Pool":         {"bob": "gn", "olga": "gcudn", "h1": "g", "h2": "g"},
	"Service":      {"olga": "gcud"},
	"Desktop":      {"ana": "gnr", "olga": "gcudnr"},
	"Machine":      {"ana": "g", "olga": "g", "h1": "gs"},
	"Session":      {"ana": "gdn", "olga": "gudn"},
	"Grant":        {"bob": "g", "olga": "gcud"},
	"Operation":    {"ana": "g", "olga": "g"},
	"Decision":     {"ana": "g", "olga": "g"},
	"Trial":        {"olga": "g"},
	"Event":        {"ana": "g", "olga": "g", "h1": "c", "h2": "c"},
}

var verbs = []struct{ letter, verb string }{
	{"g", "get"}, {"g", "list"}, {"g", "watch"}, {"c", "create"}, {"u", "update"}, {"d", "delete"},
	{"n", "connect"}, {"r", "start"}, {"s", "status"},
}

// callers returns every role.
func callers() map[string]auth.Caller {
	cs := map[string]auth.Caller{
		"nobody": {}, "socket": {Admin: true}, "root": {Person: "root", Admin: true},
		"h1": {Agent: "h1", Scopes: []string{"agent:h1"}}, "h2": {Agent: "h2", Scopes: []string{"agent:h2"}},
		"root reading":    {Person: "root", Scopes: []string{"read"}},
		"root connecting": {Person: "root", Scopes: []string{"connect"}},
		"ana reading":     {Person: "ana", Scopes: []string{"read"}},
		"olga writing":    {Person: "olga", Scopes: []string{"write"}},
	}
	for _, name := range []string{"ana", "bob", "olga", "eve"} {
		cs[name] = auth.Caller{Person: name}
	}
	return cs
}

// may returns what the matrix gives the role.
func may(kind estate.Kind, role string) string {
	keep := func(letters, of string) string {
		return strings.Map(func(r rune) rune {
			if strings.ContainsRune(letters, r) {
				return r
			}
			return -1
		}, of)
	}
	switch role {
	case "socket", "root":
		return "gcudnrs"
	case "root reading":
		return "g"
	case "root connecting":
		return "gnr"
	case "ana reading":
		return keep("g", matrix[kind]["ana"])
	case "olga writing":
		return keep("gcud", matrix[kind]["olga"])
	}
	return matrix[kind][role]
}

// office builds one object of every kind and returns them.
func office(t *testing.T, w *world) map[estate.Kind]estate.Ref {
	t.Helper()
	refs := map[estate.Kind]estate.Ref{"Person": {Kind: "Person", Name: "ana"}}
	desk := estate.Ref{Kind: "Desktop", Project: "office", Name: "d1"}
	machine := &estate.Machine{Head: head("Machine", "office", "m1"), Spec: estate.MachineSpec{Hypervisor: "h1"}}
	machine.Metadata.Owner = &desk
	volume := &estate.Volume{Head: head("Volume", "office", "home"), Spec: estate.VolumeSpec{Person: "ana"}}
	volume.Status.Hypervisor = "h1"
	for _, r := range []estate.Resource{
		&estate.Project{Head: head("Project", "", "office")},
		&estate.Group{Head: head("Group", "", "staff"), Spec: estate.GroupSpec{Members: []string{"bob"}}},
		&estate.Hypervisor{Head: head("Hypervisor", "", "h1")},
		&estate.Context{Head: head("Context", "office", "green")},
		&estate.Network{Head: head("Network", "office", "lan")},
		&estate.Image{Head: head("Image", "office", "deb")},
		&estate.Application{Head: head("Application", "office", "writer")},
		&estate.ServiceLevel{Head: head("ServiceLevel", "office", "fast")},
		&estate.Blueprint{Head: head("Blueprint", "office", "clerk")},
		volume,
		&estate.Pool{Head: head("Pool", "office", "counter"), Spec: estate.PoolSpec{Blueprint: "clerk", Maximum: 3}},
		&estate.Service{Head: head("Service", "office", "shop")},
		&estate.Desktop{Head: head("Desktop", "office", "d1"), Spec: estate.DesktopSpec{Blueprint: "clerk", Person: "ana"}},
		machine,
		&estate.Session{Head: head("Session", "office", "s1"), Spec: estate.SessionSpec{Desktop: "d1", Person: "ana"}},
		&estate.Grant{Head: head("Grant", "office", "g1"), Spec: estate.GrantSpec{
			To: estate.Grantee{Group: "staff"}, Of: estate.Granted{Kind: "Application", Name: "writer"}, Role: estate.Use,
		}},
		&estate.Operation{Head: head("Operation", "office", "o1"), Spec: estate.OperationSpec{On: desk}},
		&estate.Decision{Head: head("Decision", "office", "shop-out"), Spec: estate.DecisionSpec{On: desk}},
		&estate.Trial{Head: head("Trial", "", "t1")},
		&estate.Event{Head: head("Event", "office", "e1"), Spec: estate.EventSpec{On: desk}},
	} {
		w.create(t, r)
		refs[r.Header().Kind] = r.Header().Ref()
	}
	w.create(t, &estate.Grant{Head: head("Grant", "office", "seats"), Spec: estate.GrantSpec{
		To: estate.Grantee{Group: "staff"}, Of: estate.Granted{Kind: "Pool", Name: "counter"}, Role: estate.Use,
	}})
	w.create(t, &estate.Grant{Head: head("Grant", "office", "boss"), Spec: estate.GrantSpec{
		To: estate.Grantee{Person: "olga"}, Of: estate.Granted{Kind: "Project"}, Role: estate.Operate,
	}})
	return refs
}

func TestEveryKindHasARow(t *testing.T) {
	for _, k := range estate.Kinds() {
		if matrix[k.Kind] == nil {
			t.Errorf("%s is not in the matrix: say who may do what with it, here and in rows", k.Kind)
		}
	}
}

// checkMatrix asks everything of everybody.
func checkMatrix(t *testing.T, w *world, refs map[estate.Kind]estate.Ref) {
	asked := 0
	for _, k := range estate.Kinds() {
		for role, caller := range callers() {
			rights := may(k.Kind, role)
			for _, v := range verbs {
				asked++
				err := w.Allow(t.Context(), caller, v.verb, refs[k.Kind])
				switch want := strings.Contains(rights, v.letter); {
				case want && err != nil:
					t.Errorf("%s %s %s: %v, want allowed", role, v.verb, refs[k.Kind], err)
				case want:
				case err == nil:
					t.Errorf("%s %s %s: allowed, want refused", role, v.verb, refs[k.Kind])
				case strings.Contains(rights, "g") && fault.KindOf(err) != fault.Denied:
					t.Errorf("%s %s %s: %v, want %v, for it is seen", role, v.verb, refs[k.Kind], err, fault.Denied)
				case !strings.Contains(rights, "g") && fault.KindOf(err) != fault.NotFound:
					t.Errorf("%s %s %s: %v, want %v, for it is not seen", role, v.verb, refs[k.Kind], err, fault.NotFound)
				}
			}
		}
	}
	t.Logf("%d questions", asked)
}

func TestMatrixFromTheStore(t *testing.T) {
	w := newWorld(t, cheap)
	checkMatrix(t, w, office(t, w))
}

func TestMatrixFromMemory(t *testing.T) {
	w := newWorld(t, cheap)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	refs := office(t, w) // some before, some after it has read everything
	until(t, "rights are in memory", w.InMemory)
	// The last grant made is what olga's rights hang on.
	until(t, "olga operates", func() bool {
		return w.Allow(ctx, auth.Caller{Person: "olga"}, "create", refs["Desktop"]) == nil
	})
	checkMatrix(t, w, refs)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// until polls the condition.
func until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	late := time.After(10 * time.Second)
	for !holds() {
		select {
		case <-late:
			t.Fatalf("it never came: %s", what)
		case <-time.After(time.Millisecond):
		}
	}
}

func TestMemoryFollowsGrantsAndGroups(t *testing.T) {
	w := newWorld(t, cheap)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { _ = w.Run(ctx) }()
	until(t, "rights are in memory", w.InMemory)
	refs := office(t, w)
	bob := auth.Caller{Person: "bob", Groups: []string{"staff"}} // as he was when his watch began
	sees := func() bool { return w.Allow(ctx, bob, "get", refs["Application"]) == nil }
	until(t, "bob sees the application", sees)
	if err := w.store.Delete(ctx, refs["Grant"], 0); err != nil {
		t.Fatal(err)
	}
	until(t, "bob sees it no more", func() bool { return !sees() })
	w.create(t, &estate.Grant{Head: head("Grant", "office", "g2"), Spec: estate.GrantSpec{
		To: estate.Grantee{Group: "staff"}, Of: estate.Granted{Kind: "Application", Name: "writer"}, Role: estate.Use,
	}})
	until(t, "bob sees it again", sees)
	if err := w.store.Delete(ctx, refs["Group"], 0); err != nil {
		t.Fatal(err)
	}
	until(t, "bob is in no group", func() bool { return !sees() })
}

func TestWhoSawAnObjectMayLearnThatItWent(t *testing.T) {
	w := newWorld(t, cheap)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { _ = w.Run(ctx) }()
	until(t, "rights are in memory", w.InMemory)
	refs := office(t, w)
	ana, eve := auth.Caller{Person: "ana"}, auth.Caller{Person: "eve"}
	until(t, "olga operates", func() bool {
		return w.Allow(ctx, auth.Caller{Person: "olga"}, "create", refs["Desktop"]) == nil
	})
	if err := w.store.Delete(ctx, refs["Session"], 0); err != nil {
		t.Fatal(err)
	}
	w.create(t, &estate.Grant{Head: head("Grant", "office", "later"), Spec: estate.GrantSpec{
		To: estate.Grantee{Person: "eve"}, Of: estate.Granted{Kind: "Application", Name: "writer"}, Role: estate.Use,
	}})
	until(t, "what came after the deletion is known", func() bool { return w.Allow(ctx, eve, "get", refs["Application"]) == nil })
	if err := w.Allow(ctx, ana, "get", refs["Session"]); err != nil {
		t.Errorf("ana: %v", err)
	}
	wantKind(t, "eve", w.Allow(ctx, eve, "get", refs["Session"]), fault.NotFound)
}

func TestNotFoundSaysNoMoreThanOfAnAbsentObject(t *testing.T) {
	w := newWorld(t, cheap)
	refs := office(t, w)
	eve := auth.Caller{Person: "eve"}
	hidden := w.Allow(t.Context(), eve, "get", refs["Desktop"])
	absent := w.Allow(t.Context(), eve, "get", estate.Ref{Kind: "Desktop", Project: "office", Name: "d9"})
	_, stored := w.store.Load(t.Context(), estate.Ref{Kind: "Desktop", Project: "office", Name: "d9"})
	if strings.ReplaceAll(hidden.Error(), "d1", "d9") != absent.Error() || absent.Error() != stored.Error() {
		t.Errorf("hidden %q, absent %q, not stored %q: they tell apart what is there", hidden, absent, stored)
	}
}

func TestUseOfAProjectShowsNoDesktopsOfOthers(t *testing.T) {
	w := newWorld(t, cheap)
	refs := office(t, w)
	w.create(t, &estate.Grant{Head: head("Grant", "office", "all"), Spec: estate.GrantSpec{
		To: estate.Grantee{Person: "eve"}, Of: estate.Granted{Kind: "Project"}, Role: estate.Use,
	}})
	eve := auth.Caller{Person: "eve"}
	if err := w.Allow(t.Context(), eve, "get", refs["Application"]); err != nil {
		t.Errorf("the control: %v", err)
	}
	for _, k := range []estate.Kind{"Desktop", "Session", "Machine", "Volume", "Operation", "Event", "Network"} {
		wantKind(t, "eve gets "+refs[k].String(), w.Allow(t.Context(), eve, "get", refs[k]), fault.NotFound)
	}
}

func TestOperatorsHaveNothingToSayElsewhere(t *testing.T) {
	w := newWorld(t, cheap)
	office(t, w)
	w.create(t, &estate.Desktop{Head: head("Desktop", "school", "d1"), Spec: estate.DesktopSpec{Person: "bob"}})
	olga := auth.Caller{Person: "olga"}
	for _, v := range verbs {
		wantKind(t, v.verb, w.Allow(t.Context(), olga, v.verb, estate.Ref{Kind: "Desktop", Project: "school", Name: "d1"}), fault.NotFound)
	}
	wantKind(t, "create project", w.Allow(t.Context(), olga, "create", estate.Ref{Kind: "Project", Name: "school"}), fault.NotFound)
}

func TestUnknownVerbsAndKindsAreRefused(t *testing.T) {
	w := newWorld(t, cheap)
	root := auth.Caller{Person: "root", Admin: true}
	wantKind(t, "an unknown verb", w.Allow(t.Context(), root, "impersonate", estate.Ref{Kind: "Person", Name: "ana"}), fault.Denied)
	wantKind(t, "an unknown kind", w.Allow(t.Context(), root, "get", estate.Ref{Kind: "Secret", Name: "x"}), fault.NotFound)
}
