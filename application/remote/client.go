package remote

import (
	"context"
	"net"

	"consort.dev/consort/application/driver"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// Dial returns the provider that is served at the unix socket path. It has the
// abilities that the served one has. A socket that nobody serves is
// fault.Unavailable, now and in every later call.
func Dial(ctx context.Context, path string) (driver.Provider, error) {
	c := &client{path: path}
	m, err := c.call(ctx, message{Say: "describe"}, nil, nil)
	if err != nil {
		return nil, err
	}
	if m.Builds {
		return builder{c}, nil
	}
	return c, nil
}

type client struct{ path string }

// builder is a client whose provider makes layers.
type builder struct{ *client }

func (c *client) Describe(ctx context.Context) (estate.DeliveryOffer, error) {
	m, err := c.call(ctx, message{Say: "describe"}, nil, nil)
	if err != nil || m.Offer == nil {
		return estate.DeliveryOffer{}, err
	}
	return *m.Offer, nil
}

func (c *client) Attach(ctx context.Context, m driver.Machine, l driver.Layer) error {
	_, err := c.call(ctx, message{Say: "attach", Layer: &l}, m, nil)
	return err
}

func (c *client) Attached(ctx context.Context, m driver.Machine) ([]estate.Digest, error) {
	done, err := c.call(ctx, message{Say: "attached"}, m, nil)
	return done.Digests, err
}

func (c *client) Start(ctx context.Context, m driver.Machine, l driver.Layer, app driver.Launch) error {
	_, err := c.call(ctx, message{Say: "start", Layer: &l, Launch: &app}, m, nil)
	return err
}

func (c *client) Detach(ctx context.Context, m driver.Machine, layer estate.Digest) error {
	_, err := c.call(ctx, message{Say: "detach", Layer: &driver.Layer{Digest: layer}}, m, nil)
	return err
}

// Build implements driver.Builder; dir is a folder of the host both share.
func (b builder) Build(ctx context.Context, r driver.Recipe, dir string, report func(estate.Work)) (string, error) {
	done, err := b.call(ctx, message{Say: "build", Recipe: &r, Dir: dir}, nil, report)
	return done.Path, err
}

// call asks the other process, answers its questions to the machine, and
// returns the outcome.
func (c *client) call(ctx context.Context, request message, m driver.Machine, report func(estate.Work)) (message, error) {
	if ctx.Err() != nil {
		return message{}, ctx.Err()
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", c.path)
	if err != nil {
		return message{}, fault.Unavailable.Errorf("reach the provider at %s: %w", c.path, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if m != nil {
		request.Machine = m.ID()
	}
	l := newLine(conn)
	if err := l.send(request); err != nil {
		return message{}, lost(ctx, request, err)
	}
	for {
		said, err := l.receive()
		if err != nil {
			return message{}, lost(ctx, request, err)
		}
		switch {
		case said.Say == "done":
			return said, said.err(ctx)
		case said.Say == "work" && said.Work != nil && report != nil:
			report(*said.Work)
		case said.Say == "work":
		case m != nil:
			if err := l.send(answer(ctx, m, said)); err != nil {
				return message{}, lost(ctx, request, err)
			}
		default:
			return message{}, fault.Internal.Errorf("the provider at %s says %q during %s", c.path, said.Say, request.Say)
		}
	}
}

// lost is the error of a connection that broke after the request went out.
func lost(ctx context.Context, request message, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case request.Say == "attached" || request.Say == "describe":
		return fault.Unavailable.Errorf("ask the provider: %w", err)
	}
	return fault.OutcomeUnknown.Errorf("the provider's process went away: %w", err)
}

// answer does on the machine what the provider asks for.
func answer(ctx context.Context, m driver.Machine, question message) message {
	a := message{Say: "answer"}
	switch {
	case question.Say == "attach-disk" && question.Disk != nil:
		return a.fail(m.AttachDisk(ctx, *question.Disk))
	case question.Say == "detach-disk" && question.Disk != nil:
		return a.fail(m.DetachDisk(ctx, question.Disk.Name))
	case question.Say == "disks":
		disks, err := m.Disks(ctx)
		a.Disks = disks
		return a.fail(err)
	case question.Say == "run":
		out, err := m.Run(ctx, question.Args, question.Stdin)
		a.Output = &out
		return a.fail(err)
	}
	return a.fail(fault.Internal.Errorf("a machine does not do %q", question.Say))
}
