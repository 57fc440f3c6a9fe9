package rpc

import (
	"encoding/json"
	"errors"
	"net"
	"testing"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// guests answers run calls to hypervisor a by handing each request to do.
func (p *plane) guests(do func(api.RunRequest) (*api.RunReply, error)) {
	p.t.Helper()
	m := &estate.Machine{Head: head("Machine", "p", "desk"), Spec: estate.MachineSpec{Hypervisor: "a"}}
	if err := p.store.Create(p.t.Context(), m); err != nil {
		p.t.Fatal(err)
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
			var req api.RunRequest
			if json.NewDecoder(near).Decode(&req) != nil || c.Verb != api.CallRun {
				return
			}
			if reply, err := do(req); err == nil {
				json.NewEncoder(near).Encode(reply)
			}
		}()
		return nil
	})
	eventually(p.t, "the agent listens", func() bool { return p.calls.Listening("a") })
}

func TestRunCarriesInputAndOutput(t *testing.T) {
	p := start(t)
	p.office()
	p.guests(func(r api.RunRequest) (*api.RunReply, error) {
		return &api.RunReply{Exit: 3, Stdout: append([]byte(r.Args[0]+" "), r.Stdin...), Stderr: []byte("hm")}, nil
	})
	out, err := p.as("root").Run(t.Context(), "p", "desk", api.RunRequest{Args: []string{"cat"}, Stdin: []byte("in\x00")})
	if err != nil || out.Exit != 3 || string(out.Stdout) != "cat in\x00" || string(out.Stderr) != "hm" {
		t.Errorf("got %+v, %v", out, err)
	}
}

func TestRunTellsWhatIsNotKnown(t *testing.T) {
	p := start(t)
	p.office()
	p.guests(func(r api.RunRequest) (*api.RunReply, error) {
		if r.Args[0] == "lost" {
			return nil, errors.New("cut")
		}
		return &api.RunReply{Error: api.NewProblem(fault.Unavailable.Errorf("its agent does not answer"))}, nil
	})
	for arg, want := range map[string]fault.Kind{"lost": fault.OutcomeUnknown, "silent": fault.Unavailable} {
		if _, err := p.as("root").Run(t.Context(), "p", "desk", api.RunRequest{Args: []string{arg}}); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", arg, err, want)
		}
	}
}

func TestOnlyAnAdministratorRunsCommands(t *testing.T) {
	p := start(t)
	p.office()
	ran := 0
	p.guests(func(api.RunRequest) (*api.RunReply, error) { ran++; return &api.RunReply{}, nil })
	for _, who := range []string{"ana", "oli", "agent-a"} {
		_, err := p.as(who).Run(t.Context(), "p", "desk", api.RunRequest{Args: []string{"id"}})
		if k := fault.KindOf(err); k != fault.Denied && k != fault.NotFound {
			t.Errorf("%s: %v, want a refusal", who, err)
		}
	}
	if _, err := p.as("root").Run(t.Context(), "p", "desk", api.RunRequest{}); !errors.Is(err, fault.Invalid) {
		t.Errorf("no command: %v, want invalid", err)
	}
	if ran != 0 {
		t.Errorf("%d commands ran", ran)
	}
	if _, err := p.as("root").Run(t.Context(), "p", "desk", api.RunRequest{Args: []string{"id"}}); err != nil || ran != 1 {
		t.Errorf("the administrator: %v after %d", err, ran)
	}
}
