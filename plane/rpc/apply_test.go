package rpc

import (
	"encoding/json"
	"errors"
	"slices"
	"testing"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

func jsonInto(s string, v any) error { return json.Unmarshal([]byte(s), v) }

func TestASetIsAppliedInAnyOrderAndTwiceIsOnce(t *testing.T) {
	p := start(t)
	c, ctx := p.as("root"), t.Context()
	set := []estate.Resource{context0("work", "lan"), network("lan"), project("p")}
	first, err := c.Apply(ctx, set, false)
	if err != nil {
		t.Fatal(err)
	}
	again, err := c.Apply(ctx, set, false)
	if err != nil {
		t.Fatal(err)
	}
	for i := range set {
		a, b := first.Results[i], again.Results[i]
		if a.Ref != set[i].Header().Ref() || a.Change != api.Created || b.Change != api.Unchanged || a.Version == 0 || a.Version != b.Version {
			t.Errorf("%s: first %+v, again %+v; want created, then unchanged at the same version", set[i].Header().Ref(), a, b)
		}
	}
}

func TestApplySaysWhatDiffersByField(t *testing.T) {
	p := start(t)
	p.office()
	b := blueprint("office")
	b.Spec.Presentation, b.Spec.Size.CPUs = "glass", 4
	b.Spec.Applications = []estate.ApplicationChoice{{Name: "writer"}}
	res, err := p.as("root").Apply(t.Context(), []estate.Resource{b, network("lan")}, true)
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, d := range res.Results[0].Diff {
		paths = append(paths, d.Path+" "+string(d.Was)+" "+string(d.Is))
	}
	want := []string{`spec.applications  [{"name":"writer"}]`, `spec.presentation "paper" "glass"`, `spec.size  {"cpus":4}`}
	if !slices.Equal(paths, want) {
		t.Errorf("got %q, want %q", paths, want)
	}
	if got := res.Results[1].Change; got != api.Unchanged {
		t.Errorf("the network: got %s, want unchanged", got)
	}
}

func TestOneWrongObjectKeepsTheWholeSetOut(t *testing.T) {
	p := start(t)
	c, ctx := p.as("root"), t.Context()
	bad, lost := network("bad"), context0("work", "lon")
	bad.Spec.Subnet = "everything"
	_, err := c.Apply(ctx, []estate.Resource{project("p"), network("lan"), bad, lost}, false)
	if !errors.Is(err, fault.Invalid) {
		t.Fatalf("got %v, want invalid", err)
	}
	var at []string
	for _, q := range api.Problems(err) {
		at = append(at, q.Path+": "+q.Text)
	}
	want := []string{
		`objects[2].spec.subnet: "everything" is not an IPv4 prefix; write 10.77.1.0/24`,
		`objects[3].spec.network: there is no network "lon"; did you mean lan?`,
	}
	if !slices.Equal(at, want) {
		t.Errorf("got %q, want %q", at, want)
	}
	if _, err := p.store.Load(ctx, project("p").Ref()); !errors.Is(err, fault.NotFound) {
		t.Errorf("part of the set was stored: %v", err)
	}
}

func TestApplyKeepsThePowerItDoesNotMention(t *testing.T) {
	p := start(t)
	p.office()
	ctx, c := t.Context(), p.as("root")
	if _, err := c.Connect(ctx, "p", "desk", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Apply(ctx, []estate.Resource{desktop("desk", "ana")}, false); err != nil {
		t.Fatal(err)
	}
	d, err := api.Get[estate.Desktop](ctx, c, "p", "desk")
	if err != nil || d.Spec.Power != estate.On {
		t.Errorf("got power %q, %v; want on", d.Spec.Power, err)
	}
}

func TestWhoMayNotChangeOneObjectAppliesNone(t *testing.T) {
	p := start(t)
	p.office()
	_, err := p.as("oli").Apply(t.Context(), []estate.Resource{network("new"), person("eve")}, false)
	if err == nil {
		t.Fatal("an operator of one project made a person")
	}
	if _, err := p.store.Load(t.Context(), network("new").Ref()); !errors.Is(err, fault.NotFound) {
		t.Errorf("part of the set was stored: %v", err)
	}
	if _, err := p.as("oli").Apply(t.Context(), []estate.Resource{network("new")}, false); err != nil {
		t.Errorf("what oli may: %v", err)
	}
}
