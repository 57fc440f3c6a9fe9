package api

import (
	"context"

	"consort.dev/consort/estate"
)

// CallRun has an agent run a command in a guest: a RunRequest line goes to it
// through the tunnel, a RunReply line comes back.
const CallRun Verb = "run"

// RunRequest is a command for a machine's guest. Secrets travel on its input,
// never among its arguments.
type RunRequest struct {
	Args  []string `json:"args" minItems:"1" doc:"Program and arguments; no shell."`
	Stdin []byte   `json:"stdin,omitempty" doc:"Its input, in base64."`
}

// RunReply is what the command left behind, each stream at most 1 MiB.
type RunReply struct {
	Exit   int      `json:"exit"`
	Stdout []byte   `json:"stdout,omitempty"`
	Stderr []byte   `json:"stderr,omitempty"`
	Error  *Problem `json:"error,omitempty" doc:"Why it was not run, or nobody knows whether."`
}

// Run runs a command in the guest of a machine, as its administrator, and waits
// for it. It is never repeated: fault.OutcomeUnknown says that it may have run.
func (c *Client) Run(ctx context.Context, project, machine string, cmd RunRequest) (*RunReply, error) {
	return answer[RunReply](ctx, c, Path(estate.Ref{Kind: "Machine", Project: project, Name: machine})+"/run", cmd)
}
