package rdp

import (
	"bufio"
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"consort.dev/consort/fault"
	"consort.dev/consort/presentation/driver"
)

const (
	openingTime = 20 * time.Second
	buffer      = 16 << 10
	// making bounds what a guest says before its first picture: capabilities,
	// licences and channels come to about 2 KiB; a picture is far more. The
	// pictures themselves cannot be seen.
	making = 8 << 10
)

// relay is one session.
type relay struct {
	driver.Session
	events chan driver.Event
	once   sync.Once
	mu     sync.Mutex
	shown  bool
	typed  bool
}

func (r *relay) close() {
	r.once.Do(func() {
		_ = r.Viewer.Close() // there is nobody to tell
		_ = r.Machine.Close()
	})
}

// run carries the session and closes both ends before it returns.
func (r *relay) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, r.close)
	defer stop()
	defer r.close()
	viewer := bufio.NewReaderSize(r.Viewer, buffer)
	machine := bufio.NewReaderSize(r.Machine, buffer)
	next, gone, err := r.open(viewer, machine)
	if err == nil && gone == "" {
		gone, err = r.carry(viewer, machine, next)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil {
		r.events <- driver.Event{Name: gone}
	}
	return err
}

// open passes the opening on and returns how to read what follows, or who left.
func (r *relay) open(viewer, machine *bufio.Reader) (nextFrame, driver.EventName, error) {
	late := time.AfterFunc(openingTime, r.close)
	defer late.Stop()
	request, err := readOpening(viewer, x224Request)
	if err != nil {
		return nil, driver.ViewerGone, breach(err, fault.Invalid)
	}
	r.events <- driver.Event{Name: driver.ViewerAccepted}
	if _, err := r.Machine.Write(request); err != nil {
		return nil, driver.MachineGone, nil
	}
	confirm, err := readOpening(machine, x224Confirm)
	if err != nil {
		return nil, driver.MachineGone, breach(err, fault.Unavailable)
	}
	if _, err := r.Viewer.Write(confirm); err != nil {
		return nil, driver.ViewerGone, nil
	}
	if negotiated(confirm) {
		return nextTLS, "", nil
	}
	return nextPlain, "", nil
}

type nextFrame func(*bufio.Reader) (frame, error)

// breach keeps a breach, as of the kind, and forgets the end of a connection.
func breach(err error, kind fault.Kind) error {
	if errors.Is(err, fault.Invalid) {
		return kind.Errorf("%w", err)
	}
	return nil
}

// carry relays until somebody leaves or breaks the protocol.
func (r *relay) carry(viewer, machine *bufio.Reader, next nextFrame) (gone driver.EventName, err error) {
	var wg sync.WaitGroup
	var once sync.Once
	end := func(who driver.EventName, why error) {
		once.Do(func() { gone, err = who, why })
		r.close()
	}
	wg.Go(func() {
		who, why := pump(viewer, r.Machine, next, driver.ViewerGone, driver.MachineGone, r.saw(true))
		end(who, breach(why, fault.Invalid))
	})
	wg.Go(func() {
		who, why := pump(machine, r.Viewer, next, driver.MachineGone, driver.ViewerGone, r.saw(false))
		end(who, breach(why, fault.Unavailable))
	})
	wg.Wait()
	return gone, err
}

// pump copies frames until one end is gone and says which.
func pump(from *bufio.Reader, to io.Writer, next nextFrame, src, dst driver.EventName, saw func(frame)) (driver.EventName, error) {
	for {
		f, err := next(from)
		if err != nil {
			return src, err
		}
		for left := f.size; left > 0; {
			if from.Buffered() == 0 {
				if _, err := from.Peek(1); err != nil {
					return src, err
				}
			}
			b, err := from.Peek(min(left, from.Buffered()))
			if err != nil {
				return src, err
			}
			if _, err := to.Write(b); err != nil {
				return dst, nil
			}
			left -= len(b)
			if _, err := from.Discard(len(b)); err != nil {
				return src, err
			}
		}
		saw(f)
	}
}

// saw guesses the first picture and the first input from sizes.
func (r *relay) saw(fromViewer bool) func(frame) {
	said := 0
	return func(f frame) {
		if !f.inner {
			return
		}
		said += f.size
		r.mu.Lock()
		defer r.mu.Unlock()
		switch {
		case fromViewer && r.shown && !r.typed:
			r.typed = true
			r.events <- driver.Event{Name: driver.FirstInput}
		case !fromViewer && !r.shown && said > making:
			r.shown = true
			r.events <- driver.Event{Name: driver.FirstFrame}
		}
	}
}
