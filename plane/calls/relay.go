package calls

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/fault"
)

// verdictLimit is how long a receiver may take to put away what it has got: it
// flushes disks, and may hash them once more.
const verdictLimit = 30 * time.Minute

// Leg is one end of a relay: whom to call, and for what.
type Leg struct {
	Hypervisor string
	Call       api.Call
}

// Relay calls two agents and carries what the first sends to the second, which
// sees its end as the end of the stream and answers with one api.StartReply
// line. An error in it is Relay's. The bytes are not looked at: who sends and
// who receives agree on them, and the receiver knows from them, as by their
// number or their hash, that nothing is missing. carried is told how many have
// gone so far, often and in order, and may be nil. A side that breaks off, or
// the end of ctx, is fault.Unavailable: what the receiver did with a part is its
// own affair, and the same relay may be tried again.
func (b *Broker) Relay(ctx context.Context, from, to Leg, carried func(total int64)) error {
	// The receiver first: a source that has begun to read must not wait.
	into, err := b.Dial(ctx, to.Hypervisor, to.Call)
	if err != nil {
		return err
	}
	defer into.Close()
	out, err := b.Dial(ctx, from.Hypervisor, from.Call)
	if err != nil {
		return err
	}
	defer out.Close()
	stop := context.AfterFunc(ctx, func() {
		into.Close()
		out.Close()
	})
	defer stop()
	// A receiver that refuses half-way says why before it closes.
	verdict := make(chan error, 1)
	go func() { verdict <- hear(into) }()
	_, err = io.Copy(into, &meter{from: out, carried: carried})
	if err == nil {
		err = closeWrite(into)
	}
	if err == nil {
		_ = into.SetReadDeadline(time.Now().Add(verdictLimit))
	} else {
		// The copy failed on either side: only the receiver can have left a word.
		_ = into.SetReadDeadline(time.Now().Add(time.Second))
		out.Close()
	}
	said := <-verdict
	switch {
	case ctx.Err() != nil:
		return fault.Unavailable.Errorf("carry from hypervisor %s to %s: %w", from.Hypervisor, to.Hypervisor, context.Cause(ctx))
	case errors.Is(said, errSilent) && err != nil:
		return fault.Unavailable.Errorf("carry from hypervisor %s to %s: %w", from.Hypervisor, to.Hypervisor, err)
	case errors.Is(said, errSilent):
		return fault.Unavailable.Errorf("carry from hypervisor %s to %s: the receiver went away before it said that it has everything", from.Hypervisor, to.Hypervisor)
	case said == nil && err != nil:
		return fault.Unavailable.Errorf("carry from hypervisor %s to %s: the receiver was content too early: %w", from.Hypervisor, to.Hypervisor, err)
	}
	return said
}

var errSilent = errors.New("no verdict")

// hear reads the receiver's line.
func hear(conn net.Conn) error {
	var reply api.StartReply
	if err := json.NewDecoder(io.LimitReader(conn, 64<<10)).Decode(&reply); err != nil {
		return errSilent
	}
	if reply.Error != nil {
		return reply.Error
	}
	return nil
}

// closeWrite tells the other side that nothing more comes.
func closeWrite(conn net.Conn) error {
	h, ok := conn.(interface{ CloseWrite() error })
	if !ok {
		return fault.Internal.Errorf("this tunnel closes in both directions only")
	}
	return h.CloseWrite()
}

// meter counts what is read.
type meter struct {
	from    io.Reader
	total   int64
	carried func(int64)
}

// Read implements io.Reader.
func (m *meter) Read(p []byte) (int, error) {
	n, err := m.from.Read(p)
	m.total += int64(n)
	if m.carried != nil && n > 0 {
		m.carried(m.total)
	}
	return n, err
}
