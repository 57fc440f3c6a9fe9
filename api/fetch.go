package api

import (
	"context"
	"io"
	"net/http"

	"consort.dev/consort/estate"
)

// FetchRequest asks for content that some other host has.
type FetchRequest struct {
	Digest estate.Digest `json:"digest"`
	From   int64         `json:"from,omitempty" doc:"Leave out this many bytes of the content: the caller has them."`
}

// ClaimRequest asks to be the only host that does a piece of work.
type ClaimRequest struct {
	Work string `json:"work" doc:"What is done, as image default/office at 3."`
	Drop bool   `json:"drop,omitempty" doc:"Let go of the claim instead."`
}

// Fetch opens content from some other host that has it; the plane looks for
// one. What is read is what that host's agent wrote: only the digest tells that
// it is right and whole. That every host was asked and none has it is
// fault.NotFound; that one which may have it does not answer is
// fault.Unavailable.
func (c *Client) Fetch(ctx context.Context, hypervisor string, want FetchRequest) (io.ReadCloser, error) {
	resp, err := c.send(ctx, request{method: http.MethodPost, path: hypervisorPath(hypervisor, "fetch"), body: want})
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// Claim makes the hypervisor's agent the only one that does the work, until it
// lets go of it or its lease runs out. Work of another agent's is
// fault.Conflict, which names it. Claiming twice is claiming once.
func (c *Client) Claim(ctx context.Context, hypervisor, work string) error {
	_, err := answer[Empty](ctx, c, hypervisorPath(hypervisor, "claim"), ClaimRequest{Work: work})
	return err
}

// Drop lets go of a claim. One that the agent does not have is success.
func (c *Client) Drop(ctx context.Context, hypervisor, work string) error {
	_, err := answer[Empty](ctx, c, hypervisorPath(hypervisor, "claim"), ClaimRequest{Work: work, Drop: true})
	return err
}
