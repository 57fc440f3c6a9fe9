package agent

import (
	"slices"
	"testing"

	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor"
	"consort.dev/consort/hypervisor/fakehost"
)

func TestAPoolsTemplateIsNamedThoughNoMachineIsThere(t *testing.T) {
	host, err := hypervisor.Open(t.Context(), "here", fakehost.New(fakehost.Options{}))
	if err != nil {
		t.Fatal(err)
	}
	named := &estate.Pool{Status: estate.PoolStatus{Template: "t-1"}}
	a := &Agent{Options: Options{Host: host}, pools: map[string]*estate.Pool{"p/desk": named, "p/new": {}}}
	if got, want := a.namedTemplates(), []string{a.templateHere("t-1")}; !slices.Equal(got, want) {
		t.Errorf("templates that somebody names: %v, want %v", got, want)
	}
}
