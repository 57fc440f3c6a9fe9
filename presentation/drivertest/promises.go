package drivertest

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/presentation/driver"
)

func describeNeverChanges(ctx context.Context, rig Rig) error {
	a, err1 := rig.Provider.Describe(ctx)
	b, err2 := rig.Provider.Describe(ctx)
	if a != b {
		return fmt.Errorf("Describe = %+v, then %+v", a, b)
	}
	return errors.Join(err1, err2)
}

func describeNamesItself(ctx context.Context, rig Rig) error {
	o, err := rig.Provider.Describe(ctx)
	if err == nil && (estate.NameProblem(o.Name) != "" || o.Protocol == "") {
		err = fmt.Errorf("Describe = %+v, want a name and a protocol", o)
	}
	return err
}

func picturesReachTheViewer(ctx context.Context, rig Rig) error {
	return within(ctx, rig, everything(), func(p *play) error { return p.viewer.Look() })
}

func keysReachTheMachine(ctx context.Context, rig Rig) error {
	return within(ctx, rig, everything(), func(p *play) error {
		for _, k := range []byte("consort") {
			if err := p.viewer.Type(k); err != nil {
				return err
			}
		}
		return p.eventually("the keys arrive in order", func() bool { return p.machine.Typed() == "consort" })
	})
}

func viewerThatLeavesIsSuccess(ctx context.Context, rig Rig) error {
	p, err := start(ctx, rig, driver.Session{Policy: everything()}, "")
	p.viewing.Close()
	return errors.Join(err, p.result())
}

func machineThatLeavesIsSuccess(ctx context.Context, rig Rig) error {
	p, err := start(ctx, rig, driver.Session{Policy: everything()}, "")
	p.machines.Close()
	return errors.Join(err, p.result())
}

// cancelled begins a session and ends its context.
func cancelled(ctx context.Context, rig Rig) (*play, time.Duration, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p, err := start(ctx, rig, driver.Session{Policy: everything()}, "")
	if err != nil {
		p.leave()
		return p, 0, err
	}
	began := time.Now()
	cancel()
	select {
	case err = <-p.done:
		return p, time.Since(began), err
	case <-time.After(p.bound):
		p.leave()
		return p, p.bound, <-p.done
	}
}

func contextThatEndsIsReturned(ctx context.Context, rig Rig) error {
	if _, _, err := cancelled(ctx, rig); !errors.Is(err, context.Canceled) {
		return fmt.Errorf("Serve = %v, want context.Canceled", err)
	}
	return nil
}

func contextThatEndsIsNoticedSoon(ctx context.Context, rig Rig) error {
	if _, took, _ := cancelled(ctx, rig); took > time.Second {
		return fmt.Errorf("Serve returned after %v, want within a second", took)
	}
	return nil
}

func viewersEndIsClosed(ctx context.Context, rig Rig) error { return endIsClosed(ctx, rig, 0) }

func machinesEndIsClosed(ctx context.Context, rig Rig) error { return endIsClosed(ctx, rig, 1) }

func endIsClosed(ctx context.Context, rig Rig, i int) error {
	p, err := start(ctx, rig, driver.Session{Policy: everything()}, "")
	if err != nil {
		p.leave()
		return err
	}
	leaves := []*wire{p.machines, p.viewing}[i] // the other one
	leaves.Close()
	err = p.result()
	if !p.given[i].isClosed() {
		err = errors.Join(err, errors.New("Serve returned and left an end open"))
	}
	p.leave()
	return err
}

func viewersBreachIsItsOwn(ctx context.Context, rig Rig) error {
	p, err := start(ctx, rig, driver.Session{Policy: everything()}, "")
	if err != nil {
		p.leave()
		return err
	}
	if err := p.viewer.Break(); err != nil {
		return err
	}
	err = p.result()
	p.leave()
	return isKind(err, fault.Denied, fault.Invalid)
}

func machinesBreachIsUnavailable(ctx context.Context, rig Rig) error {
	p, err := start(ctx, rig, driver.Session{Policy: everything()}, "")
	if err != nil {
		p.leave()
		return err
	}
	if err := p.machine.Break(); err != nil {
		return err
	}
	err = p.result()
	p.leave()
	return isKind(err, fault.Unavailable)
}

func secretOpens(ctx context.Context, rig Rig) error {
	secret, err := newSecret(rig.Provider)
	if err != nil {
		return err
	}
	p, err := start(ctx, rig, driver.Session{Policy: everything(), Secret: secret}, secret)
	return errors.Join(err, p.finish())
}

func wrongSecretDoesNotOpen(ctx context.Context, rig Rig) error {
	right, err1 := newSecret(rig.Provider)
	wrong, err2 := newSecret(rig.Provider)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	if right == wrong {
		wrong = strings.Repeat("x", len(right))
	}
	p, opened := start(ctx, rig, driver.Session{Policy: everything(), Secret: right}, wrong)
	err := p.result()
	p.leave()
	if opened == nil {
		return errors.New("a viewer with the wrong secret got a picture")
	}
	return isKind(err, fault.Denied, fault.Invalid)
}

func secretsDiffer(_ context.Context, rig Rig) error {
	seen := map[string]bool{}
	for range 100 {
		s, err := newSecret(rig.Provider)
		if err != nil {
			return err
		}
		if s == "" || seen[s] {
			return fmt.Errorf("NewSecret = %q, a second time or empty", s)
		}
		seen[s] = true
	}
	return nil
}

// holds runs a deed under a policy that must hold something back.
func holds(ctx context.Context, rig Rig, policy driver.Policy, deed func(*play) error, crossed func(*play) string) error {
	return holdsIn(ctx, rig, driver.Session{Policy: policy}, deed, crossed)
}

// holdsIn is holds for a session of which more than the policy is given.
func holdsIn(ctx context.Context, rig Rig, s driver.Session, deed func(*play) error, crossed func(*play) string) error {
	err := during(ctx, rig, s, func(p *play) error {
		if err := deed(p); err != nil {
			return err
		}
		for range 3 { // a clipboard may take turns: told, asked, handed over
			if err := p.viewer.Look(); err != nil {
				return err
			}
		}
		if got := crossed(p); got != "" {
			return fmt.Errorf("%q crossed, which the policy denies", got)
		}
		return nil
	})
	if errors.Is(err, errRefused) {
		return nil
	}
	return err
}

// crosses runs a deed under a policy that lets its text through.
func crosses(ctx context.Context, rig Rig, policy driver.Policy, deed func(*play) error, crossed func(*play) string) error {
	err := within(ctx, rig, policy, func(p *play) error {
		if err := deed(p); err != nil {
			return err
		}
		for range 20 {
			if err := p.viewer.Look(); err != nil {
				return err
			}
			if crossed(p) == text {
				return nil
			}
		}
		return fmt.Errorf("text = %q, want %q", crossed(p), text)
	})
	if errors.Is(err, errRefused) {
		return nil
	}
	return err
}

const text = "two lines\nand a café"

func paste(text string) func(*play) error {
	return func(p *play) error { return p.viewer.Paste(text) }
}

func copyOut(text string) func(*play) error {
	return func(p *play) error { return p.machine.Copy(text) }
}

func pasted(p *play) string { return p.machine.Pasted() }
func copied(p *play) string { return p.viewer.Copied() }

// only is a policy for a clipboard that goes one way.
func only(in, out bool) driver.Policy {
	return driver.Policy{Clipboard: estate.Clipboard{In: in, Out: out, MaxBytes: longest}}
}

func viewOnlyTypesNothing(ctx context.Context, rig Rig) error {
	policy := everything()
	policy.ViewOnly = true
	return holds(ctx, rig, policy, func(p *play) error { return p.viewer.Type('x') }, func(p *play) string { return p.machine.Typed() })
}

// unowned is a session of a machine that has no identity of its own, and will
// never have one.
func unowned() driver.Session {
	return driver.Session{Policy: everything(), Own: make(chan struct{})}
}

func nothingTypedBeforeOwn(ctx context.Context, rig Rig) error {
	return holdsIn(ctx, rig, unowned(), typing, func(p *play) string { return p.machine.Typed() })
}

func nothingPastedBeforeOwn(ctx context.Context, rig Rig) error {
	return holdsIn(ctx, rig, unowned(), paste(text), pasted)
}

func nothingCopiedBeforeOwn(ctx context.Context, rig Rig) error {
	return holdsIn(ctx, rig, unowned(), copyOut(text), copied)
}

// keysReachOnceOwn presses a key again and again: when it is heard of, elsewhere,
// that the machine is its own takes as long as a message.
func keysReachOnceOwn(ctx context.Context, rig Rig) error {
	own := make(chan struct{})
	err := during(ctx, rig, driver.Session{Policy: everything(), Own: own}, func(p *play) error {
		close(own)
		var typed error
		return errors.Join(p.eventually("a key arrives", func() bool {
			typed = errors.Join(typed, p.viewer.Type('x'))
			return typed != nil || p.machine.Typed() != ""
		}), typed)
	})
	if errors.Is(err, errRefused) {
		return nil
	}
	return err
}

func clipboardGoesIn(ctx context.Context, rig Rig) error {
	return crosses(ctx, rig, only(true, false), paste(text), pasted)
}

func clipboardStaysOut(ctx context.Context, rig Rig) error {
	return holds(ctx, rig, only(false, true), paste(text), pasted)
}

func clipboardGoesOut(ctx context.Context, rig Rig) error {
	return crosses(ctx, rig, only(false, true), copyOut(text), copied)
}

func clipboardStaysIn(ctx context.Context, rig Rig) error {
	return holds(ctx, rig, only(true, false), copyOut(text), copied)
}

func longTextStaysOut(ctx context.Context, rig Rig) error {
	return holds(ctx, rig, limited(), paste(strings.Repeat("x", longest+1)), pasted)
}

func longTextStaysIn(ctx context.Context, rig Rig) error {
	return holds(ctx, rig, limited(), copyOut(strings.Repeat("x", longest+1)), copied)
}

func reportMayBeNil(ctx context.Context, rig Rig) error {
	viewing, viewer := newPair()
	machines, machine := newPair()
	rig.Machine(machines)
	done := make(chan error, 1)
	go func() {
		defer func() {
			if r := recover(); r != nil {
				done <- fmt.Errorf("Serve panics: %v", r)
			}
		}()
		done <- rig.Provider.Serve(ctx, driver.Session{Viewer: viewer, Machine: machine, Policy: everything()})
	}()
	err := timed(rig.bound(), func() error {
		_, err := rig.Viewer(viewing, "")
		return err
	})
	viewing.Close()
	machines.Close()
	select {
	case served := <-done:
		return errors.Join(served, err)
	case <-time.After(rig.bound()):
		return errors.Join(err, errors.New("Serve did not return"))
	}
}

// lively is a session in which much happens at both ends at once.
func lively(ctx context.Context, rig Rig) (*play, error) {
	var of *play
	err := within(ctx, rig, only(false, false), func(p *play) error {
		of = p
		var wg sync.WaitGroup
		var out error
		wg.Go(func() {
			for range 10 {
				out = errors.Join(out, p.machine.Copy(text))
			}
		})
		var in error
		for _, k := range []byte("keys") {
			in = errors.Join(in, p.viewer.Type(k), p.viewer.Paste(text))
		}
		wg.Wait()
		return errors.Join(in, out, p.viewer.Look())
	})
	return of, err
}

func eventsComeOneAtATime(ctx context.Context, rig Rig) error {
	p, err := lively(ctx, rig)
	if errors.Is(err, errRefused) {
		return nil
	}
	if err == nil && p.overlap {
		err = errors.New("Report was called while it ran")
	}
	return err
}

func acceptedComesFirst(ctx context.Context, rig Rig) error {
	p, err := start(ctx, rig, driver.Session{Policy: everything()}, "")
	if err = errors.Join(err, p.finish()); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.events {
		switch e.Name {
		case driver.ViewerAccepted:
			return nil
		case driver.FirstFrame:
			return fmt.Errorf("%q came before %q", driver.FirstFrame, driver.ViewerAccepted)
		}
	}
	return fmt.Errorf("no event %q", driver.ViewerAccepted)
}

func nothing(*play) error   { return nil }
func typing(p *play) error  { return p.viewer.Type('x') }
func leaving(p *play) error { return p.viewing.Close() }
func dying(p *play) error   { return p.machines.Close() }

// reports wants the event after the deed.
func reports(name driver.EventName, deed func(*play) error) func(context.Context, Rig) error {
	return func(ctx context.Context, rig Rig) error {
		p, err := start(ctx, rig, driver.Session{Policy: everything()}, "")
		if err == nil {
			err = deed(p)
		}
		if err == nil {
			err = p.eventually(fmt.Sprintf("event %q", name), func() bool {
				p.mu.Lock()
				defer p.mu.Unlock()
				for _, e := range p.events {
					if e.Name == name {
						return true
					}
				}
				return false
			})
		}
		return errors.Join(err, p.finish())
	}
}

// here is where the files of these tests lead.
var here = driver.Handoff{Host: "127.0.0.1", Port: 54321, Title: "Ana's desktop", Secret: "s3cret-8", User: "user"}

func fileWhenOffered(ctx context.Context, rig Rig) error {
	_, err := rig.Provider.File(ctx, here)
	if !hasFile(rig.Provider) {
		return isKind(err, fault.Unsupported)
	}
	return err
}

func fileHasExtension(ctx context.Context, rig Rig) error {
	o, err1 := rig.Provider.Describe(ctx)
	f, err2 := rig.Provider.File(ctx, here)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	if path.Ext(f.Name) != "."+o.File {
		return fmt.Errorf("File's name = %q, want the extension %q that is offered", f.Name, o.File)
	}
	return nil
}

func fileSaysWhere(ctx context.Context, rig Rig) error {
	f, err := rig.Provider.File(ctx, here)
	if err != nil {
		return err
	}
	for _, want := range []string{here.Host, strconv.Itoa(here.Port)} {
		if !strings.Contains(string(f.Content), want) {
			return fmt.Errorf("File's content lacks %q", want)
		}
	}
	return nil
}

// sessionsDoNotMix is also for the race detector.
func sessionsDoNotMix(ctx context.Context, rig Rig) error {
	const n = 8
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			want := strings.Repeat(string(rune('a'+i)), 20)
			errs[i] = within(ctx, rig, everything(), func(p *play) error {
				for _, k := range []byte(want) {
					if err := p.viewer.Type(k); err != nil {
						return err
					}
				}
				return p.eventually("its own keys, and no others, arrive", func() bool { return p.machine.Typed() == want })
			})
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// stuckViewerHoldsUpNobody opens a session whose viewer asks and does not read,
// and wants another's pictures.
func stuckViewerHoldsUpNobody(ctx context.Context, rig Rig) error {
	stuck, err := start(ctx, rig, driver.Session{Policy: everything()}, "")
	if err != nil {
		return errors.Join(err, stuck.finish())
	}
	stuck.viewing.stall()
	asked := make(chan error, 1)
	go func() { asked <- stuck.viewer.Look() }()
	err = stuck.eventually("the session writes to the viewer that does not read", stuck.viewing.holds)
	if err == nil {
		err = within(ctx, rig, everything(), func(p *play) error { return p.viewer.Look() })
	}
	err = errors.Join(err, stuck.finish())
	<-asked // it was left without an answer
	return err
}
