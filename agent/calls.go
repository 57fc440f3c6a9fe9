package agent

import (
	"context"
	"encoding/json"
	"io"
	"net/netip"
	"sync"
	"time"

	"consort.dev/consort/api"
	appdriver "consort.dev/consort/application/driver"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/internal/splice"
)

const (
	// callLimit is how long a call may take until its tunnel is open; the
	// plane waits no longer.
	callLimit = 30 * time.Second
	// startLimit is how long an application may take to be running. Software
	// emulation makes large ones slow.
	startLimit = 3 * time.Minute
)

// answer answers what the plane asks of this host, each call by a tunnel that
// it opens back.
func (a *Agent) answer(ctx context.Context, wg *sync.WaitGroup) {
	lost := func(err error) {
		if ctx.Err() == nil {
			a.Log.Warn("wait for calls", "error", err)
		}
	}
	for c := range a.Plane.Calls(ctx, a.Hypervisor, lost) {
		wg.Go(func() {
			err := a.serve(ctx, c)
			if err == nil || ctx.Err() != nil {
				return
			}
			// Whoever called hears why, instead of waiting for nothing.
			if lost := a.Plane.RefuseCall(ctx, c.ID, err); lost != nil {
				a.Log.Warn("answer call", "verb", c.Verb, "machine", c.Machine, "error", err)
			}
		})
	}
}

func (a *Agent) serve(ctx context.Context, c api.Call) error {
	if c.Moving != nil {
		return a.serveMove(ctx, c)
	}
	if c.Verb == api.CallContent {
		return a.sendContent(ctx, c)
	}
	if c.Verb == api.CallUsage {
		return a.sendUsage(ctx, c)
	}
	k, ok := a.running(c.Machine)
	if !ok {
		return fault.NotFound.Errorf("no machine %s on this host", c.Machine)
	}
	switch c.Verb {
	case api.CallDisplay:
		return a.carry(ctx, c, func(ctx context.Context) (io.ReadWriteCloser, error) { return a.Host.Display(ctx, c.Machine) })
	case api.CallPort:
		return a.carry(ctx, c, func(ctx context.Context) (io.ReadWriteCloser, error) { return a.dial(ctx, k, c.Port) })
	case api.CallStart:
		return a.serveStart(ctx, k, c)
	case api.CallRun:
		return a.serveRun(ctx, k, c)
	case api.CallFile:
		return a.serveFile(ctx, k, c)
	case api.CallTrial:
		return a.serveTrial(ctx, k, c)
	case api.CallAccount:
		return a.serveAccount(ctx, k, c)
	}
	return fault.Unsupported.Errorf("this agent does not know the call %q; update it", c.Verb)
}

// carry joins what open returns to the tunnel until either side ends.
func (a *Agent) carry(ctx context.Context, c api.Call, open func(context.Context) (io.ReadWriteCloser, error)) error {
	dialing, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	there, err := open(dialing)
	if err != nil {
		return err
	}
	here, err := a.Plane.OpenCall(dialing, c.ID)
	if err != nil {
		there.Close()
		return err
	}
	splice.Join(ctx, here, there)
	return nil
}

// dial reaches a TCP port of the guest through its network.
func (a *Agent) dial(ctx context.Context, k *keeper, port int) (io.ReadWriteCloser, error) {
	m, _ := k.latest()
	if err := a.networked(); err != nil {
		return nil, err
	}
	for i, n := range m.Spec.Hardware.NICs {
		addr, err := a.Network.Address(m.Metadata.Project, n.Network, k.mac(n, i))
		if err != nil {
			continue
		}
		return a.Network.Dial(ctx, m.Metadata.Project, n.Network, netip.AddrPortFrom(addr, uint16(port)))
	}
	return nil, fault.Unavailable.Errorf("machine %s has no address yet", m.Metadata.Name)
}

// networked returns an error where guests have no networks.
func (a *Agent) networked() error {
	if a.Network == nil {
		return fault.Unsupported.Errorf("guests cannot be reached on this host: %s", a.NoNetwork)
	}
	return nil
}

func (a *Agent) serveStart(ctx context.Context, k *keeper, c api.Call) error {
	if c.Start == nil {
		return fault.Invalid.Errorf("a start says what to start")
	}
	return a.reply(ctx, c, func(ctx context.Context) error {
		s := c.Start
		return a.start(ctx, k, s.Layer, appdriver.Launch{Command: s.Command, User: s.User, Home: s.Home})
	})
}

// serveAccount gives an account of the guest the password of one session.
func (a *Agent) serveAccount(ctx context.Context, k *keeper, c api.Call) error {
	if c.Account == nil || estate.NameProblem(c.Account.User) != "" {
		return fault.Invalid.Errorf("an account has a name")
	}
	return a.reply(ctx, c, func(ctx context.Context) error {
		out, err := guestMachine{k}.Run(ctx, []string{"/usr/sbin/chpasswd"}, []byte(c.Account.User+":"+c.Account.Password+"\n"))
		if err == nil && out.Exit != 0 {
			err = fault.Unavailable.Errorf("chpasswd ended with %d: %s", out.Exit, out.Stderr)
		}
		return err
	})
}

// reply opens the tunnel, acts, and answers with one line.
func (a *Agent) reply(ctx context.Context, c api.Call, act func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	conn, err := a.Plane.OpenCall(ctx, c.ID)
	if err != nil {
		return err
	}
	defer conn.Close()
	var reply api.StartReply
	if err := act(ctx); err != nil {
		reply.Error = api.NewProblem(err)
	}
	return json.NewEncoder(conn).Encode(reply)
}
