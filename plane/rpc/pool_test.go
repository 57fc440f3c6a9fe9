package rpc

import (
	"context"
	"net/http"
	"testing"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// benches gives everybody a session of their own name, once.
type benches map[string]bool

func (b benches) Connect(_ context.Context, pool estate.Ref, person string, req api.ConnectRequest) (*estate.Session, bool, error) {
	if person == "" {
		return nil, false, fault.Invalid.Errorf("a seat is for a person")
	}
	s := &estate.Session{Spec: estate.SessionSpec{Pool: pool.Name, Person: person, Presentation: req.Presentation}}
	made := !b[person]
	b[person] = true
	return s, made, nil
}

func TestWhoIsGrantedAPoolConnectsToItForThemselves(t *testing.T) {
	p := start(t)
	p.office()
	for _, r := range []estate.Resource{
		person("ben"),
		&estate.Pool{Head: estate.Head{Kind: "Pool", Metadata: estate.Metadata{Name: "counter", Project: "p"}}, Spec: estate.PoolSpec{Blueprint: "office", Maximum: 2}},
		&estate.Grant{Head: estate.Head{Kind: "Grant", Metadata: estate.Metadata{Name: "seats", Project: "p"}}, Spec: estate.GrantSpec{
			To: estate.Grantee{Person: "ana"}, Of: estate.Granted{Kind: "Pool", Name: "counter"}, Role: estate.Use,
		}},
	} {
		if err := p.store.Create(t.Context(), r); err != nil && fault.KindOf(err) != fault.Exists {
			t.Fatal(err)
		}
	}
	at := "/v1/projects/p/pools/counter/connect"
	p.curl("ana", "POST", at, `{}`).want(t, "ana", http.StatusCreated, `"person":"ana"`)
	p.curl("ana", "POST", at, `{}`).want(t, "ana again", http.StatusOK, `"person":"ana"`)
	p.curl("ana", "POST", at, `{"person":"ben"}`).want(t, "ana for ben", http.StatusForbidden)
	p.curl("eve", "POST", at, `{}`).want(t, "without a grant", http.StatusNotFound)
	p.curl("root", "POST", at, `{"person":"ben"}`).want(t, "an administrator for ben", http.StatusCreated, `"person":"ben"`)
	p.curl("root", "POST", at, `{"person":"nobody"}`).want(t, "for who is not there", http.StatusNotFound)
	p.curl("root", "POST", at, `{"presentation":"smoke","person":"ben"}`).want(t, "an unknown presentation", http.StatusUnprocessableEntity)
}

func TestNobodyComesBackToASeatThatIsThrownAway(t *testing.T) {
	p := start(t)
	p.office()
	seat := &estate.Desktop{Head: estate.Head{Kind: "Desktop", Metadata: estate.Metadata{Name: "counter-1", Project: "p"}},
		Spec: estate.DesktopSpec{Blueprint: "office", Pool: "counter", Person: "ana", Power: estate.On}}
	seat.Status.Plan = &estate.Plan{Disposable: true}
	s := &estate.Session{Head: estate.Head{Kind: "Session", Metadata: estate.Metadata{Name: "first", Project: "p"}},
		Spec: estate.SessionSpec{Desktop: "counter-1", Pool: "counter", Person: "ana"}}
	for _, r := range []estate.Resource{
		&estate.Pool{Head: estate.Head{Kind: "Pool", Metadata: estate.Metadata{Name: "counter", Project: "p"}}, Spec: estate.PoolSpec{Blueprint: "office", Maximum: 2}},
		seat, s,
	} {
		if err := p.store.Create(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	at := "/v1/projects/p/desktops/counter-1/connect"
	p.curl("ana", "POST", at, `{}`).want(t, "while her session goes on", http.StatusOK, `"name":"first"`)
	s.Spec.End = true
	if err := p.store.Update(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	p.curl("ana", "POST", at, `{}`).want(t, "after it", http.StatusPreconditionFailed, "connect to pool counter")
}
