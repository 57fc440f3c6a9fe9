package rpc

import (
	"bufio"
	"context"
	"net/http"
	"strconv"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/store"
)

// agentLease is how long an agent may be silent before its hypervisor is
// taken for lost.
const agentLease = 10 * time.Second

// agent checks that the caller is the agent of the hypervisor in the path, or
// an administrator, and that there is such a hypervisor.
func (c *call) agent() (string, error) {
	ref := c.ref()
	if !c.caller.Admin && (c.caller.Agent == "" || c.caller.Agent != ref.Name) {
		if err := c.allow("get", ref); err != nil {
			return "", err
		}
		return "", fault.Denied.Errorf("%s: only its agent may do this", ref)
	}
	_, err := c.Store.Load(c.r.Context(), ref)
	return ref.Name, err
}

// join gives the agent a lease; an older one of the same hypervisor ends.
func (c *call) join() error {
	name, err := c.agent()
	if err != nil {
		return err
	}
	ctx, kv := c.r.Context(), c.Store.KV()
	lease, err := kv.Lease(ctx, agentLease)
	if err != nil {
		return err
	}
	old, err := kv.Get(ctx, api.AgentLeases+name)
	if err != nil && fault.KindOf(err) != fault.NotFound {
		return err
	}
	text := strconv.FormatInt(int64(lease), 16)
	_, err = kv.Commit(ctx, store.Txn{Then: []store.Write{{Key: api.AgentLeases + name, Value: []byte(text), Lease: lease}}})
	if err != nil {
		return err
	}
	if old.Lease != 0 && old.Lease != lease {
		if err := kv.Revoke(ctx, old.Lease); err != nil {
			return err
		}
	}
	return c.reply(http.StatusOK, api.JoinReply{Lease: text, TTL: estate.Duration(agentLease)})
}

// alive renews the agent's lease.
func (c *call) alive() error {
	name, err := c.agent()
	if err != nil {
		return err
	}
	var req api.AliveRequest
	if err := c.message(&req); err != nil {
		return err
	}
	ctx, kv := c.r.Context(), c.Store.KV()
	e, err := kv.Get(ctx, api.AgentLeases+name)
	if err == nil && string(e.Value) == req.Lease {
		err = kv.KeepAlive(ctx, e.Lease)
	} else if err == nil {
		err = fault.NotFound.Errorf("another agent joined")
	}
	if err != nil {
		return fault.KindOf(err).Errorf("keep hypervisor %s alive: join again: %w", name, err)
	}
	return c.reply(http.StatusOK, api.Empty{})
}

// calls passes the plane's calls on to the agent.
func (c *call) calls() error {
	name, err := c.agent()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(c.r.Context())
	defer cancel()
	out := newLines(c.w)
	out.begin()
	if err := out.flush(); err != nil {
		return nil
	}
	queue := make(chan api.Call)
	go func() {
		defer cancel()
		_ = c.Calls.Listen(ctx, name, func(call api.Call) error {
			select {
			case queue <- call:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	beat := time.NewTicker(c.Beat)
	defer beat.Stop()
	for {
		var line any = api.Empty{} // a sign of life
		select {
		case call := <-queue:
			line = call
		case <-beat.C:
			if caller, err := c.Auth.Authenticate(c.r); err != nil || caller.Agent != c.caller.Agent || caller.Admin != c.caller.Admin {
				return nil
			}
		case <-ctx.Done():
			return nil
		}
		if out.write(line) != nil {
			return nil
		}
	}
}

// answering returns the hypervisor whose agent the caller is. The
// administrator at the socket is every agent: the one in the plane's own
// process comes that way.
func (c *call) answering(id string) (string, error) {
	switch {
	case c.caller.Agent != "":
		return c.caller.Agent, nil
	case c.caller.Admin:
		return c.Calls.Whose(id), nil
	}
	return "", fault.Denied.Errorf("answer a call: only agents may")
}

// refuse passes the agent's reason on to who waits for its tunnel.
func (c *call) refuse() error {
	id := c.r.PathValue("id")
	hypervisor, err := c.answering(id)
	if err != nil {
		return err
	}
	why := new(api.Problem)
	if err := c.message(why); err != nil {
		return err
	}
	if err := c.Calls.Refuse(hypervisor, id, why); err != nil {
		return err
	}
	return c.reply(http.StatusOK, api.Empty{})
}

// answer turns the request into the tunnel that a call waits for.
func (c *call) answer() error {
	id := c.r.PathValue("id")
	hypervisor, err := c.answering(id)
	if c.r.Header.Get("Upgrade") != api.TunnelUpgrade {
		return fault.Invalid.Errorf("answer a call: say Connection: Upgrade and Upgrade: %s, over HTTP/1.1", api.TunnelUpgrade)
	}
	if err != nil {
		return err
	}
	give, err := c.Calls.Answer(hypervisor, id)
	if err != nil {
		return err
	}
	conn, rw, err := http.NewResponseController(c.w).Hijack()
	if err != nil {
		return fault.Invalid.Errorf("answer a call: use HTTP/1.1: %w", err)
	}
	_ = conn.SetDeadline(time.Time{})
	w := bufio.NewWriter(conn)
	_, _ = w.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + api.TunnelUpgrade + "\r\n\r\n")
	if err := w.Flush(); err != nil {
		conn.Close()
		return nil // the caller goes on waiting until its time is up
	}
	if rec, ok := c.w.(*recorder); ok {
		rec.status = http.StatusSwitchingProtocols
	}
	give(api.Buffered(conn, rw.Reader))
	return nil
}
