package drivertest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/presentation/driver"
)

// asked is a policy whose texts wait until they are asked for.
func asked() driver.Policy {
	return driver.Policy{Clipboard: estate.Clipboard{In: true, Out: true, MaxBytes: longest, Gesture: true}}
}

func textWaitsIn(ctx context.Context, rig Rig) error {
	return holds(ctx, rig, asked(), paste(text), pasted)
}

func textWaitsOut(ctx context.Context, rig Rig) error {
	return holds(ctx, rig, asked(), copyOut(text), copied)
}

func askedTextGoesIn(ctx context.Context, rig Rig) error {
	return crosses(ctx, rig, asked(), func(p *play) error {
		return errors.Join(p.viewer.Paste(text), p.viewer.Look(), p.viewer.Ask(true))
	}, pasted)
}

func askedTextGoesOut(ctx context.Context, rig Rig) error {
	return crosses(ctx, rig, asked(), func(p *play) error {
		err := p.machine.Copy(text)
		for range 3 { // it may take turns: told, asked, handed over
			err = errors.Join(err, p.viewer.Look())
		}
		return errors.Join(err, p.viewer.Ask(false))
	}, copied)
}

const second = "the second text"

func askingLetsOneThrough(ctx context.Context, rig Rig) error {
	return holds(ctx, rig, asked(), func(p *play) error {
		err := errors.Join(p.viewer.Paste(text), p.viewer.Look(), p.viewer.Ask(true))
		for range 3 {
			err = errors.Join(err, p.viewer.Look())
		}
		return errors.Join(err, p.viewer.Paste(second))
	}, func(p *play) string {
		if got := p.machine.Pasted(); got == second {
			return got
		}
		return ""
	})
}

func textIsTakenBack(ctx context.Context, rig Rig) error {
	return takenBack(ctx, rig, paste(text), pasted)
}

func textIsTakenBackOut(ctx context.Context, rig Rig) error {
	return takenBack(ctx, rig, copyOut(text), copied)
}

// takenBack has a text cross for a while and wants it gone afterwards.
func takenBack(ctx context.Context, rig Rig, deed func(*play) error, crossed func(*play) string) error {
	policy := everything()
	policy.Clipboard.TTL = estate.Duration(500 * time.Millisecond)
	err := within(ctx, rig, policy, func(p *play) error {
		came := false
		return errors.Join(deed(p), p.eventually("the text crosses and is taken back", func() bool {
			if p.viewer.Look() != nil {
				return false
			}
			came = came || crossed(p) == text
			return came && crossed(p) == ""
		}))
	})
	if errors.Is(err, errRefused) {
		return nil
	}
	return err
}

// idle is how long nothing may happen in the tests of that.
const idle = 300 * time.Millisecond

// idled begins a session in which nothing happens and returns it once it is over.
func idled(ctx context.Context, rig Rig) (*play, error) {
	policy := everything()
	policy.Idle = idle
	p, opened := start(ctx, rig, driver.Session{Policy: policy}, "")
	err := p.result()
	p.leave()
	switch {
	case opened != nil && err != nil:
		return nil, errRefused
	case opened != nil:
		return nil, opened
	}
	return p, err
}

func idleSessionEnds(ctx context.Context, rig Rig) error {
	if _, err := idled(ctx, rig); err != nil && !errors.Is(err, errRefused) {
		return fmt.Errorf("a session in which nothing happens: Serve = %w", err)
	}
	return nil
}

func idleIsReported(ctx context.Context, rig Rig) error {
	p, err := idled(ctx, rig)
	if p == nil && errors.Is(err, errRefused) {
		return nil
	}
	if err != nil {
		return err
	}
	return p.eventually(fmt.Sprintf("event %q", driver.Idle), func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, e := range p.events {
			if e.Name == driver.Idle {
				return true
			}
		}
		return false
	})
}

// inputKeepsGoing types for longer than nothing may happen.
func inputKeepsGoing(ctx context.Context, rig Rig) error {
	policy := everything()
	policy.Idle = 4 * idle
	err := within(ctx, rig, policy, func(p *play) error {
		for end := time.Now().Add(6 * idle); time.Now().Before(end); time.Sleep(idle / 10) {
			if err := p.viewer.Type('x'); err != nil {
				return err
			}
		}
		return p.viewer.Look()
	})
	if errors.Is(err, errRefused) {
		return nil
	}
	return err
}

// refusesNoPolicy tries the strictest there is.
func refusesNoPolicy(ctx context.Context, rig Rig) error {
	policy := asked()
	policy.Clipboard.TTL, policy.Clipboard.Out = estate.Duration(time.Minute), false
	policy.ViewOnly, policy.Watermark, policy.Idle = true, "ana", time.Minute
	return within(ctx, rig, policy, func(p *play) error { return p.viewer.Look() })
}
