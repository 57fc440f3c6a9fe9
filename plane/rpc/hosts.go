package rpc

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/store"
)

// Badges gives agents the certificates that they come with. What its methods
// refuse they say in fault's kinds.
type Badges interface {
	// JoinToken makes a token that lets one host join once.
	JoinToken(ctx context.Context, hypervisor string, life time.Duration) (token string, ends time.Time, err error)
	// Enrol trades a join token for an agent's first certificate.
	Enrol(ctx context.Context, token string, request []byte) (*api.Certificate, error)
	// Renew gives the agent that calls its next one.
	Renew(ctx context.Context, c Caller, request []byte) (*api.Certificate, error)
	// Revoke ends every certificate and token of the hypervisor's agent.
	Revoke(ctx context.Context, hypervisor string) (ended int, err error)
}

// administers checks that the caller is an administrator.
func (c *call) administers(what string) error {
	if c.caller.Admin {
		return nil
	}
	return fault.Denied.Errorf("%s %s: only an administrator may", what, c.r.PathValue("name"))
}

// badges returns what gives agents their certificates.
func (c *call) badges() (Badges, error) {
	if c.Badges == nil {
		return nil, fault.Unsupported.Errorf("no host can join this plane: it has no authority of its own")
	}
	return c.Badges, nil
}

// joinToken makes a token for a host that is to join.
func (c *call) joinToken() error {
	if err := c.administers("let a host join as"); err != nil {
		return err
	}
	var req api.JoinTokenRequest
	if err := c.message(&req); err != nil {
		return err
	}
	b, err := c.badges()
	if err != nil {
		return err
	}
	token, ends, err := b.JoinToken(c.r.Context(), c.r.PathValue("name"), time.Duration(req.TTL))
	if err != nil {
		return err
	}
	reply := api.JoinTokenReply{Token: token, Expires: ends}
	if c.AgentsAt != nil {
		reply.Server = c.AgentsAt()
	}
	return c.reply(http.StatusOK, reply)
}

// enrol gives a host that shows a join token its certificate.
func (c *call) enrol() error {
	var req api.EnrolRequest
	if err := c.message(&req); err != nil {
		return err
	}
	b, err := c.badges()
	if err != nil {
		return err
	}
	made, err := b.Enrol(c.r.Context(), req.Token, []byte(req.Request))
	if err := c.joined(made, req.Token, err); err != nil {
		return err
	}
	return c.reply(http.StatusOK, made)
}

// renew gives an agent its next certificate.
func (c *call) renew() error {
	if _, err := c.agent(); err != nil && !errors.Is(err, fault.NotFound) {
		return err // an agent may renew before it first said that its host is there
	}
	var req api.RenewRequest
	if err := c.message(&req); err != nil {
		return err
	}
	b, err := c.badges()
	if err != nil {
		return err
	}
	made, err := b.Renew(c.r.Context(), c.caller, []byte(req.Request))
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, made)
}

// revoke shuts an agent out.
func (c *call) revoke() error {
	if err := c.administers("revoke the agent of"); err != nil {
		return err
	}
	b, err := c.badges()
	if err != nil {
		return err
	}
	n, err := b.Revoke(c.r.Context(), c.r.PathValue("name"))
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, api.RevokeReply{Ended: n})
}

// claim makes the agent the only one that does a piece of work: the claim lasts
// as long as the agent's lease.
func (c *call) claim() error {
	name, err := c.agent()
	if err != nil {
		return err
	}
	var req api.ClaimRequest
	if err := c.message(&req); err != nil {
		return err
	}
	if req.Work == "" || len(req.Work) > 512 {
		return fault.Invalid.Errorf("claim work: say which, in at most 512 bytes")
	}
	if req.Drop {
		err = c.drop(name, req.Work)
	} else {
		err = c.take(name, req.Work)
	}
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, api.Empty{})
}

// take writes the claim down under the agent's lease.
func (c *call) take(name, work string) error {
	ctx, kv, key := c.r.Context(), c.Store.KV(), claimKey(work)
	held, err := kv.Get(ctx, key)
	switch {
	case err == nil && string(held.Value) == name:
		return nil
	case err == nil:
		return fault.Conflict.Errorf("%s: hypervisor %s does it", work, held.Value)
	case !errors.Is(err, fault.NotFound):
		return err
	}
	lease, err := kv.Get(ctx, api.AgentLeases+name)
	if err != nil {
		return fault.Unavailable.Errorf("claim work: hypervisor %s has not joined", name)
	}
	_, err = kv.Commit(ctx, store.Txn{
		If:   []store.Compare{{Key: key}},
		Then: []store.Write{{Key: key, Value: []byte(name), Lease: lease.Lease}},
	})
	return err
}

// drop deletes the claim if it is the agent's.
func (c *call) drop(name, work string) error {
	ctx, kv, key := c.r.Context(), c.Store.KV(), claimKey(work)
	held, err := kv.Get(ctx, key)
	if errors.Is(err, fault.NotFound) || err == nil && string(held.Value) != name {
		return nil
	}
	if err == nil {
		_, err = kv.Commit(ctx, store.Txn{If: []store.Compare{{Key: key, Revision: held.Revision}}, Then: []store.Write{{Key: key, Delete: true}}})
	}
	return err
}

// fetch carries content to the agent from another that has it.
func (c *call) fetch() error {
	name, err := c.agent()
	if err != nil {
		return err
	}
	var req api.FetchRequest
	if err := c.message(&req); err != nil {
		return err
	}
	if t := req.Digest.Problem(); t != "" || req.From < 0 {
		return fault.Invalid.Errorf("fetch content: name its digest, and how much of it you have: %s", t)
	}
	conn, err := c.holder(name, req)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(c.r.Context(), func() { conn.Close() })()
	c.w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = io.Copy(flushing{c.w, http.NewResponseController(c.w)}, conn) // the digest tells whether all of it came
	return nil
}

// holder opens the content at the first other host that has it.
func (c *call) holder(but string, req api.FetchRequest) (net.Conn, error) {
	hosts, err := c.hosts()
	if err != nil {
		return nil, err
	}
	missing := ""
	for _, h := range hosts {
		if h == but {
			continue
		}
		conn, err := c.Calls.Dial(c.r.Context(), h, api.Call{Verb: api.CallContent, Content: &req})
		if err == nil {
			return conn, nil
		}
		if fault.KindOf(err) != fault.NotFound {
			missing = h
		}
	}
	if missing != "" {
		return nil, fault.Unavailable.Errorf("fetch content %s: no host that answers has it, and hypervisor %s does not answer; start its agent, or delete the hypervisor", req.Digest.Short(), missing)
	}
	return nil, fault.NotFound.Errorf("fetch content %s: no host has it", req.Digest.Short())
}

// hosts returns the names of all hypervisors.
func (c *call) hosts() ([]string, error) {
	all, _, _, err := c.Store.Page(c.r.Context(), "Hypervisor", "", "", 0)
	var names []string
	for _, h := range all {
		names = append(names, h.Header().Metadata.Name)
	}
	return names, err
}

// flushing sends on what it gets at once, to a receiver that takes it in time.
type flushing struct {
	w    http.ResponseWriter
	ctrl *http.ResponseController
}

// Write implements io.Writer.
func (f flushing) Write(p []byte) (int, error) {
	_ = f.ctrl.SetWriteDeadline(time.Now().Add(slowest))
	n, err := f.w.Write(p)
	if err != nil {
		return n, err
	}
	return n, f.ctrl.Flush()
}

// claimKey returns where a claim is kept.
func claimKey(work string) string {
	sum := sha256.Sum256([]byte(work))
	return api.Claims + hex.EncodeToString(sum[:])
}
