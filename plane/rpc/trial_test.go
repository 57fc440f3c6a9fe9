package rpc

import (
	"encoding/json"
	"errors"
	"net"
	"testing"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// measurers answers trials on hypervisor a by what measure says; nil breaks off.
func (p *plane) measurers(measure func(api.TrialRequest) *api.TrialReply) {
	p.t.Helper()
	owner := estate.Ref{Kind: "Desktop", Project: "p", Name: "ana-office"}
	for name, owner := range map[string]*estate.Ref{"trial": nil, "ana-office": &owner} {
		m := &estate.Machine{Head: head("Machine", "p", name), Spec: estate.MachineSpec{Hypervisor: "a"}}
		m.Metadata.Owner = owner
		if err := p.store.Create(p.t.Context(), m); err != nil {
			p.t.Fatal(err)
		}
	}
	go p.calls.Listen(p.t.Context(), "a", func(c api.Call) error {
		if c.ID == "" {
			return nil
		}
		give, err := p.calls.Answer("a", c.ID)
		if err != nil {
			return err
		}
		far, near := net.Pipe()
		give(far)
		go func() {
			defer near.Close()
			var req api.TrialRequest
			if json.NewDecoder(near).Decode(&req) != nil || c.Verb != api.CallTrial {
				return
			}
			if reply := measure(req); reply != nil {
				json.NewEncoder(near).Encode(reply)
			}
		}()
		return nil
	})
	eventually(p.t, "the agent listens", func() bool { return p.calls.Listening("a") })
}

func TestATrialCarriesTheRequestAndTheFigures(t *testing.T) {
	p := start(t)
	p.office()
	var asked api.TrialRequest
	p.measurers(func(r api.TrialRequest) *api.TrialReply {
		asked = r
		return &api.TrialReply{Figures: map[string]float64{"take_s": 0.5}}
	})
	want := api.TrialRequest{Workload: api.TrialSnapshot, Length: estate.Duration(2 * time.Second), Program: "/bench"}
	out, err := p.as("root").Trial(t.Context(), "p", "trial", want)
	if err != nil || asked != want || len(out.Figures) != 1 || out.Figures["take_s"] != 0.5 {
		t.Errorf("got %+v, %v for %+v, want take_s 0.5 for %+v", out, err, asked, want)
	}
}

func TestATrialTellsWhyThereAreNoFigures(t *testing.T) {
	p := start(t)
	p.office()
	p.measurers(func(r api.TrialRequest) *api.TrialReply {
		if r.Workload == "lost" {
			return nil
		}
		return &api.TrialReply{Error: api.NewProblem(fault.Unsupported.Errorf("it has no display"))}
	})
	for workload, want := range map[string]fault.Kind{"lost": fault.OutcomeUnknown, api.TrialDisplay: fault.Unsupported} {
		if _, err := p.as("root").Trial(t.Context(), "p", "trial", api.TrialRequest{Workload: workload}); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", workload, err, want)
		}
	}
}

func TestNobodysMachineIsMeasuredButByAnAdministrator(t *testing.T) {
	p := start(t)
	p.office()
	p.measurers(func(r api.TrialRequest) *api.TrialReply {
		t.Errorf("%s was measured", r.Workload)
		return nil
	})
	for _, who := range []string{"ana", "oli", "agent-a"} {
		_, err := p.as(who).Trial(t.Context(), "p", "trial", api.TrialRequest{Workload: api.TrialSnapshot})
		if k := fault.KindOf(err); k != fault.Denied && k != fault.NotFound {
			t.Errorf("%s: %v, want a refusal", who, err)
		}
	}
	// What a desktop's disks hold is not for a measurement to take back.
	_, err := p.as("root").Trial(t.Context(), "p", "ana-office", api.TrialRequest{Workload: api.TrialSnapshot})
	if !errors.Is(err, fault.Conflict) {
		t.Errorf("the machine of a desktop: %v, want a conflict", err)
	}
}
