package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// Apply makes the objects as given: all of them or, when anything is wrong,
// none. See ApplyRequest for what is kept.
func (c *Client) Apply(ctx context.Context, objects []estate.Resource, dryRun bool) (*ApplyResult, error) {
	req := ApplyRequest{Objects: make([]json.RawMessage, len(objects)), DryRun: dryRun}
	for i, o := range objects {
		raw, err := json.Marshal(o)
		if err != nil {
			return nil, err
		}
		req.Objects[i] = raw
	}
	return answer[ApplyResult](ctx, c, ApplyPath, req)
}

// Connect asks for a session on the desktop and turns the desktop on. A live
// session of the same person, desktop and presentation is returned again.
func (c *Client) Connect(ctx context.Context, project, desktop, presentation string) (*estate.Session, error) {
	return answer[estate.Session](ctx, c, Path(estate.Ref{Kind: "Desktop", Project: project, Name: desktop})+"/connect", ConnectRequest{Presentation: presentation})
}

// ConnectPool asks for a session on a seat of the pool: on the one the caller
// has, or on one that it waits for. Its status says how long.
func (c *Client) ConnectPool(ctx context.Context, project, pool string, req ConnectRequest) (*estate.Session, error) {
	return answer[estate.Session](ctx, c, Path(estate.Ref{Kind: "Pool", Project: project, Name: pool})+"/connect", req)
}

// Ticket returns a ticket for a session that is ready; one that is not is
// fault.Conflict. native asks for one that a native viewer can use.
func (c *Client) Ticket(ctx context.Context, project, session string, native bool) (*Ticket, error) {
	return answer[Ticket](ctx, c, Path(estate.Ref{Kind: "Session", Project: project, Name: session})+"/ticket", TicketRequest{native})
}

// StartApplication starts the application on the desktop and returns once it
// runs.
func (c *Client) StartApplication(ctx context.Context, project, desktop, application string) error {
	_, err := answer[Empty](ctx, c, Path(estate.Ref{Kind: "Desktop", Project: project, Name: desktop})+"/start", StartRequest{application})
	return err
}

// Adopt makes a machine that was found on the hypervisor one of ours, without
// touching it. One that is not in the hypervisor's status is fault.NotFound,
// one that cannot be adopted fault.Unsupported.
func (c *Client) Adopt(ctx context.Context, hypervisor string, req AdoptRequest) (*estate.Machine, error) {
	return answer[estate.Machine](ctx, c, hypervisorPath(hypervisor, "adopt"), req)
}

// Offers returns what the plane's providers can do.
func (c *Client) Offers(ctx context.Context) (*Offers, error) {
	out := new(Offers)
	_, err := c.do(ctx, request{method: http.MethodGet, path: OffersPath}, out)
	return out, err
}

// Me returns the caller as the plane knows it.
func (c *Client) Me(ctx context.Context) (*Me, error) {
	out := new(Me)
	_, err := c.do(ctx, request{method: http.MethodGet, path: MePath}, out)
	return out, err
}

// Join tells the plane that the hypervisor's agent is there, and returns the
// lease to keep alive. A second Join takes over from the first.
func (c *Client) Join(ctx context.Context, hypervisor string) (*JoinReply, error) {
	return answer[JoinReply](ctx, c, hypervisorPath(hypervisor, "join"), Empty{})
}

// Alive renews the lease. One that has run out, or was taken over, is
// fault.NotFound: join again.
func (c *Client) Alive(ctx context.Context, hypervisor, lease string) error {
	_, err := answer[Empty](ctx, c, hypervisorPath(hypervisor, "alive"), AliveRequest{lease})
	return err
}

// LetGo tells that the finalizer's owner has cleaned up after the object, which
// goes with its last finalizer. One that is gone, or had let go, is success.
func (c *Client) LetGo(ctx context.Context, ref estate.Ref, finalizer string) error {
	_, err := answer[Empty](ctx, c, Path(ref)+"/let-go", LetGoRequest{finalizer})
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	return err
}

// Post sends a message to a route that has no method of its own here, as those
// of sign-in, and decodes the answer into out unless it is nil.
func (c *Client) Post(ctx context.Context, path string, in, out any) error {
	_, err := c.do(ctx, request{method: http.MethodPost, path: path, body: in}, out)
	return err
}

func hypervisorPath(name, verb string) string {
	return "/v1/hypervisors/" + url.PathEscape(name) + "/" + verb
}

func answer[T any](ctx context.Context, c *Client, path string, in any) (*T, error) {
	out := new(T)
	if _, err := c.do(ctx, request{method: http.MethodPost, path: path, body: in}, out); err != nil {
		return nil, err
	}
	return out, nil
}
