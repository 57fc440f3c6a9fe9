package remote

import (
	"context"
	"errors"
	"net"
	"sync"

	"consort.dev/consort/application/driver"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// Serve answers the calls that come in through l with p until ctx ends, and
// returns once the last has ended. It closes l. Who may connect is the business
// of the socket's permissions.
func Serve(ctx context.Context, l net.Listener, p driver.Provider) error {
	var calls sync.WaitGroup
	defer calls.Wait()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer l.Close()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		calls.Go(func() { serve(ctx, newLine(conn), p) })
	}
}

// serve answers one call.
func serve(ctx context.Context, l *line, p driver.Provider) {
	defer l.conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { l.conn.Close() })
	defer stop()
	request, err := l.receive()
	if err != nil {
		return
	}
	m := &machine{id: request.Machine, line: l, answers: make(chan message)}
	go m.listen(ctx, cancel)
	// Nobody is told when nobody listens: the caller hung up.
	_ = l.send(do(ctx, p, request, m))
}

// do carries out a request and returns its outcome.
func do(ctx context.Context, p driver.Provider, r message, m *machine) message {
	done := message{Say: "done"}
	if r.Layer == nil {
		r.Layer = new(driver.Layer)
	}
	if r.Launch == nil {
		r.Launch = new(driver.Launch)
	}
	switch r.Say {
	case "describe":
		_, done.Builds = driver.As[driver.Builder](p)
		offer, err := p.Describe(ctx)
		done.Offer = &offer
		return done.fail(err)
	case "attach":
		return done.fail(p.Attach(ctx, m, *r.Layer))
	case "attached":
		digests, err := p.Attached(ctx, m)
		done.Digests = digests
		return done.fail(err)
	case "start":
		return done.fail(p.Start(ctx, m, *r.Layer, *r.Launch))
	case "detach":
		return done.fail(p.Detach(ctx, m, r.Layer.Digest))
	case "build":
		b, builds := driver.As[driver.Builder](p)
		if !builds || r.Recipe == nil {
			break
		}
		path, err := b.Build(ctx, *r.Recipe, r.Dir, func(w estate.Work) { _ = m.line.send(message{Say: "work", Work: &w}) })
		done.Path = path
		return done.fail(err)
	}
	return done.fail(fault.Unsupported.Errorf("the provider does not %q", r.Say))
}

// machine asks the caller's machine.
type machine struct {
	id      estate.MachineID
	line    *line
	answers chan message
	turn    sync.Mutex // of one question and its answer
}

// listen hands the caller's answers on, and ends the call when the caller hangs up.
func (m *machine) listen(ctx context.Context, hangUp func()) {
	defer hangUp()
	for {
		said, err := m.line.receive()
		if err != nil {
			return
		}
		select {
		case m.answers <- said:
		case <-ctx.Done():
			return
		}
	}
}

func (m *machine) ask(ctx context.Context, question message) (message, error) {
	m.turn.Lock()
	defer m.turn.Unlock()
	if err := m.line.send(question); err != nil {
		return message{}, fault.Unavailable.Errorf("ask machine %s: %w", m.id, err)
	}
	select {
	case a := <-m.answers:
		return a, a.err(ctx)
	case <-ctx.Done():
		return message{}, ctx.Err()
	}
}

// ID implements driver.Machine.
func (m *machine) ID() estate.MachineID { return m.id }

// AttachDisk implements driver.Machine.
func (m *machine) AttachDisk(ctx context.Context, d driver.Disk) error {
	_, err := m.ask(ctx, message{Say: "attach-disk", Disk: &d})
	return err
}

// DetachDisk implements driver.Machine.
func (m *machine) DetachDisk(ctx context.Context, name string) error {
	_, err := m.ask(ctx, message{Say: "detach-disk", Disk: &driver.Disk{Name: name}})
	return err
}

// Disks implements driver.Machine.
func (m *machine) Disks(ctx context.Context) ([]string, error) {
	a, err := m.ask(ctx, message{Say: "disks"})
	return a.Disks, err
}

// Run implements driver.Machine.
func (m *machine) Run(ctx context.Context, args []string, stdin []byte) (driver.Output, error) {
	a, err := m.ask(ctx, message{Say: "run", Args: args, Stdin: stdin})
	if err != nil || a.Output == nil {
		return driver.Output{}, err
	}
	return *a.Output, nil
}
