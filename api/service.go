package api

import (
	"context"

	"consort.dev/consort/estate"
)

// Approve agrees to a decision that was proposed, which is then carried out. One
// that is not proposed, or no longer, is fault.Conflict.
func (c *Client) Approve(ctx context.Context, project, decision string) (*estate.Decision, error) {
	return c.onDecision(ctx, project, decision, "approve")
}

// Undo asks for a decision that was carried out to be taken back. One that was
// not is fault.Conflict.
func (c *Client) Undo(ctx context.Context, project, decision string) (*estate.Decision, error) {
	return c.onDecision(ctx, project, decision, "undo")
}

func (c *Client) onDecision(ctx context.Context, project, decision, act string) (*estate.Decision, error) {
	return answer[estate.Decision](ctx, c, Path(estate.Ref{Kind: "Decision", Project: project, Name: decision})+"/"+act, Empty{})
}

// UndoRollout has a service be made as it was in an earlier revision; in the
// last one before the newest that was not refused when it is 0. The update is
// gated like any other. A revision that is not kept is fault.NotFound.
func (c *Client) UndoRollout(ctx context.Context, project, service string, to int) (*estate.Service, error) {
	return answer[estate.Service](ctx, c, Path(estate.Ref{Kind: "Service", Project: project, Name: service})+"/undo", UndoRequest{to})
}

// UndoRequest names the revision that a service is to go back to.
type UndoRequest struct {
	Revision int `json:"revision,omitempty" doc:"The one before the newest when empty."`
}
