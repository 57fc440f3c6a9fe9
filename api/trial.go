package api

import (
	"context"

	"consort.dev/consort/estate"
)

// CallTrial has an agent do and measure its part of a workload: a TrialRequest
// line goes to it through the tunnel, a TrialReply line comes back.
const CallTrial Verb = "trial"

// The workloads that a machine's host measures, since a guest cannot.
const (
	TrialTCP      = "tcp"      // TCP between the host and the guest, both ways; the guest's program serves
	TrialDisplay  = "display"  // the machine's screen, on which the guest's program draws
	TrialSnapshot = "snapshot" // of a machine that is off: back to what the trial before kept, that dropped, and one taken anew
)

// TrialRequest asks for a workload to be measured on a machine.
type TrialRequest struct {
	Workload string          `json:"workload" enum:"tcp,display,snapshot"`
	Length   estate.Duration `json:"length,omitempty" doc:"How long each of its parts lasts, where that can be chosen; 1s when 0."`
	Program  string          `json:"program,omitempty" doc:"Path of the workloads' program in the guest, for tcp and display."`
}

// TrialReply is what was measured.
type TrialReply struct {
	Figures map[string]float64 `json:"figures,omitempty" doc:"By name with the unit at its end."`
	Error   *Problem           `json:"error,omitempty" doc:"Why it was not measured."`
}

// Trial has a machine's host measure a workload. One that the host has no
// ability for is fault.Unsupported.
func (c *Client) Trial(ctx context.Context, project, machine string, req TrialRequest) (*TrialReply, error) {
	return answer[TrialReply](ctx, c, Path(estate.Ref{Kind: "Machine", Project: project, Name: machine})+"/trial", req)
}
