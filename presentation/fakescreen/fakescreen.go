// Package fakescreen is a presentation provider in memory, for tests and for
// trying things out: its protocol is lines of text, and it keeps every promise.
package fakescreen

import (
	"bufio"
	"context"
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/presentation/driver"
)

// Protocol is what the provider speaks: lines of a verb and a quoted text. A
// viewer says secret, look, key, paste, and ask in or ask out where a text is
// held until then; a machine says picture, copy.
const Protocol = "lines"

// maxLine bounds a line.
const maxLine = 1 << 16

// Provider implements driver.Provider and driver.Secreter. The zero Provider
// is ready for use.
type Provider struct{}

var (
	_ driver.Provider = (*Provider)(nil)
	_ driver.Secreter = (*Provider)(nil)
)

// Describe implements driver.Provider.
func (*Provider) Describe(ctx context.Context) (estate.PresentationOffer, error) {
	return estate.PresentationOffer{Name: "fakescreen", Protocol: Protocol, Browser: true, File: "lines", Keeps: true}, ctx.Err()
}

// NewSecret implements driver.Secreter.
func (*Provider) NewSecret(random io.Reader) (string, error) {
	b := make([]byte, 10)
	if _, err := io.ReadFull(random, b); err != nil {
		return "", fault.Internal.Errorf("make a secret: %w", err)
	}
	return base32.StdEncoding.EncodeToString(b), nil
}

// File implements driver.Provider.
func (*Provider) File(ctx context.Context, h driver.Handoff) (driver.File, error) {
	content := fmt.Sprintf("%s\n%d\n%s\n", h.Host, h.Port, h.Secret)
	return driver.File{Name: "desktop.lines", Type: "text/plain", Content: []byte(content)}, ctx.Err()
}

// Serve implements driver.Provider.
func (*Provider) Serve(ctx context.Context, s driver.Session) error {
	r := &relay{Session: s, events: make(chan driver.Event), results: make(chan result, 2)}
	r.held = map[string]string{}
	r.ended = make(chan struct{})
	r.touched = make(chan struct{}, 1)
	stop := context.AfterFunc(ctx, r.close)
	defer stop()
	defer r.close()
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(r.events)
		r.run()
	})
	for e := range r.events {
		if s.Report != nil {
			s.Report(e)
		}
	}
	wg.Wait()
	first := <-r.results
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return first.err
}

type result struct{ err error }

// relay is one session.
type relay struct {
	driver.Session
	events  chan driver.Event
	results chan result
	once    sync.Once
	left    atomic.Bool
	typed   bool // by the viewer's pump alone

	mu   sync.Mutex
	held map[string]string // texts that wait to be asked for, by their verbs

	touched, ended chan struct{} // the viewer did something; the session is over
}

func (r *relay) close() {
	r.once.Do(func() {
		_ = r.Viewer.Close() // there is nobody to tell
		_ = r.Machine.Close()
		close(r.ended)
	})
}

// endWhenIdle ends the session once nothing was typed for too long.
func (r *relay) endWhenIdle() {
	for {
		select {
		case <-r.touched:
		case <-r.ended:
			return
		case <-time.After(r.Policy.Idle):
			r.left.Store(true)
			r.events <- driver.Event{Name: driver.Idle}
			r.close()
			return
		}
	}
}

func (r *relay) run() {
	viewer, machine := newLines(r.Viewer), newLines(r.Machine)
	if err := r.open(viewer); err != nil {
		r.results <- result{ended(err, fault.Invalid)}
		r.close()
		return
	}
	var wg sync.WaitGroup
	if r.Policy.Idle > 0 {
		wg.Go(r.endWhenIdle)
	}
	wg.Go(func() { r.pump(viewer, r.fromViewer, driver.ViewerGone, fault.Invalid) })
	wg.Go(func() { r.pump(machine, r.fromMachine(), driver.MachineGone, fault.Unavailable) })
	wg.Wait()
}

func (r *relay) open(viewer *lines) error {
	verb, text, err := viewer.next()
	if err != nil {
		return err
	}
	if verb != "secret" || text != r.Secret {
		return fault.Denied.Errorf("the viewer did not show the secret")
	}
	r.events <- driver.Event{Name: driver.ViewerAccepted}
	return nil
}

// pump carries one direction until it ends; a breach is of the kind.
func (r *relay) pump(in *lines, carry func(verb, text string) error, gone driver.EventName, kind fault.Kind) {
	for {
		verb, text, err := in.next()
		if err == nil {
			err = carry(verb, text)
		}
		if err == nil {
			continue
		}
		err = ended(err, kind)
		r.results <- result{err}
		if err == nil && r.left.CompareAndSwap(false, true) {
			r.events <- driver.Event{Name: gone}
		}
		r.close()
		return
	}
}

// ended makes the end of a connection success and keeps a breach.
func ended(err error, kind fault.Kind) error {
	switch {
	case errors.Is(err, fault.Denied):
		return err
	case errors.Is(err, fault.Invalid):
		return kind.Errorf("%w", err)
	}
	return nil
}

func (r *relay) fromViewer(verb, text string) error {
	switch verb {
	case "look":
		return say(r.Machine, verb, text)
	case "key":
		select {
		case r.touched <- struct{}{}:
		default:
		}
		if r.Policy.ViewOnly || r.Shut() {
			r.events <- driver.Event{Name: driver.PolicyRefused, Text: "keys: for now this session only looks"}
			return nil
		}
		if err := say(r.Machine, verb, text); err != nil {
			return err
		}
		if !r.typed {
			r.typed = true
			r.events <- driver.Event{Name: driver.FirstInput}
		}
		return nil
	case "ask":
		if text == "in" {
			return r.hand(r.Machine, "paste", driver.ClipboardIn)
		}
		return r.hand(r.Viewer, "copy", driver.ClipboardOut)
	case "paste":
		return r.clipboard(r.Machine, r.Policy.Clipboard.In && !r.Policy.ViewOnly, verb, text, driver.ClipboardIn)
	}
	return fault.Invalid.Errorf("viewer says %q", verb)
}

func (r *relay) fromMachine() func(verb, text string) error {
	shown := false
	return func(verb, text string) error {
		switch verb {
		case "picture":
			if r.Policy.Watermark != "" {
				text += " " + r.Policy.Watermark
			}
			if err := say(r.Viewer, verb, text); err != nil {
				return err
			}
			if !shown {
				shown = true
				r.events <- driver.Event{Name: driver.FirstFrame}
			}
			return nil
		case "copy":
			return r.clipboard(r.Viewer, r.Policy.Clipboard.Out, verb, text, driver.ClipboardOut)
		}
		return fault.Invalid.Errorf("machine says %q", verb)
	}
}

func (r *relay) clipboard(to io.Writer, allowed bool, verb, text string, e driver.EventName) error {
	most := int(r.Policy.Clipboard.MaxBytes)
	if most == 0 {
		most = int(estate.ClipboardBytes)
	}
	if !allowed || r.Shut() || len(text) > most {
		r.events <- driver.Event{Name: driver.PolicyRefused, Text: "clipboard: the context does not allow it"}
		return nil
	}
	r.mu.Lock()
	r.held[verb] = text
	r.mu.Unlock()
	if r.Policy.Clipboard.Gesture {
		return nil
	}
	return r.hand(to, verb, e)
}

// hand hands over the text that is held, if there is one, once.
func (r *relay) hand(to io.Writer, verb string, e driver.EventName) error {
	r.mu.Lock()
	text, held := r.held[verb]
	delete(r.held, verb)
	r.mu.Unlock()
	if !held {
		return nil
	}
	r.events <- driver.Event{Name: e, Bytes: int64(len(text))}
	if ttl := r.Policy.Clipboard.TTL; ttl > 0 {
		time.AfterFunc(time.Duration(ttl), func() { _ = say(to, verb, "") }) // an end that is gone has nothing to take back
	}
	return say(to, verb, text)
}

// lines reads lines of a verb and a quoted text.
type lines struct{ r *bufio.Reader }

func newLines(r io.Reader) *lines { return &lines{bufio.NewReaderSize(r, maxLine)} }

// next returns the next line; one that is none is fault.Invalid.
func (l *lines) next() (verb, text string, err error) {
	b, err := l.r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return "", "", fault.Invalid.Errorf("line of more than %d bytes", maxLine)
	}
	if err != nil {
		return "", "", err
	}
	verb, quoted, _ := strings.Cut(strings.TrimSuffix(string(b), "\n"), " ")
	text, err = strconv.Unquote(quoted)
	if err != nil {
		return "", "", fault.Invalid.Errorf("line %q: %w", b, err)
	}
	return verb, text, nil
}

func say(w io.Writer, verb, text string) error {
	_, err := fmt.Fprintf(w, "%s %q\n", verb, text)
	return err
}
