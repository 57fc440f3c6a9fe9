// Package drivertest is what it means to be a hypervisor driver, as tests.
package drivertest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor/driver"
)

// Test is what the suite asks of a test. *testing.T is one; it is not named, so
// that a product which holds hosts to the promises has no tests in it.
type Test[T any] interface {
	Context() context.Context
	Run(name string, f func(T)) bool
	Cleanup(func())
	Logf(format string, args ...any)
	Error(args ...any)
	Skip(args ...any)
}

// Run tests the driver that open returns. It calls open once per promise, and
// each host must start empty. A promise about an ability that the host does not
// declare, or that its bench cannot show, is skipped by name.
func Run[T Test[T]](t T, open func(T) Bench) {
	r := newRecorder(t)
	for _, p := range promises() {
		t.Run(p.name, func(t T) {
			judge(r, t, p, open(t))
		})
	}
}

// RunShared tests as Run does, with one host for all promises where opening one
// costs seconds. Promises that only ask a running machine something share that
// machine too; before any other all machines of the suite are deleted. A host
// that cannot be emptied is replaced by another.
func RunShared[T Test[T]](t T, open func(T) Bench) { shared(t, open, promises()) }

// RunOS tests, on a shared host, only what needs an operating system in the
// base: a host is held to the rest with a base that boots at once.
func RunOS[T Test[T]](t T, open func(T) Bench) {
	shared(t, open, slices.DeleteFunc(promises(), func(p promise) bool { return !p.os }))
}

func shared[T Test[T]](t T, open func(T) Bench, ps []promise) {
	r, b := newRecorder(t), open(t)
	for _, p := range inOrder(ps) {
		if p.needs == estate.CanMoveLive && b.Other == nil && b.Second != nil {
			b.Other = b.Second()
		}
		t.Run(p.name, func(sub T) {
			if !p.asks {
				if err := b.clean(sub.Context()); err != nil {
					t.Logf("%s gets another host: %v", p.name, err)
					b = open(t)
				}
			}
			judge(r, sub, p, b)
		})
	}
}

// Check holds one host to all promises, as RunShared does, outside of a test,
// and says of each as it goes what came of it.
func Check(ctx context.Context, b Bench, told func(Result)) (Report, error) {
	d, err := b.Host.Describe(ctx)
	if err != nil {
		return Report{}, err
	}
	report := b.report(d)
	for _, p := range inOrder(promises()) {
		r := Result{Promise: p.name, Needs: p.needs, Verdict: Broken}
		if err := b.clean(ctx); !p.asks && err != nil {
			r.Reason = err.Error()
		} else {
			r = p.try(ctx, b)
		}
		report.Promises = append(report.Promises, r)
		told(r)
	}
	return report, b.clean(ctx)
}

// inOrder puts those first that only ask, and those last that take two hosts.
func inOrder(ps []promise) []promise {
	rank := func(p promise) int {
		switch {
		case p.needs == estate.CanMoveLive:
			return 2
		case p.asks:
			return 0
		}
		return 1
	}
	slices.SortStableFunc(ps, func(a, b promise) int { return cmp.Compare(rank(a), rank(b)) })
	return ps
}

// A promise is one clause of package driver. It is checked by a function that
// returns an error, not one that fails a test, so that the checks can be
// checked: see TestLiars.
type promise struct {
	name  string
	needs estate.Capability   // what it is a promise of; the basic verbs when empty
	with  []estate.Capability // what else it takes to see whether it is kept
	also  estate.Capability   // it says nothing of hosts without this
	os    bool                // needs a base with an operating system
	asks  bool                // leaves a machine that runs, or none, as it found it
	keeps func(context.Context, Bench) error
}

// promises returns all promises.
func promises() []promise {
	return slices.Concat(verbs, displays, consoles, hotplugs, guests, transfers, snapshots, saves, resizes, meters, moves, watches, surveys, freezes, clones, joins, pauses, seals)
}

// skip is why it cannot be seen whether a promise is kept.
type skip string

func (s skip) Error() string { return string(s) }

// void is why a promise says nothing of a host.
type void string

func (v void) Error() string { return string(v) }

// wentOff is that a machine went off by itself while its guest booted. Emulators
// crash now and then: QEMU 7.2 with two emulated processors in one of some hundred
// boots. What they were asked to keep is seen at the second try; a host on which
// it happens twice is not believed.
type wentOff struct{ because error }

func (w wentOff) Error() string {
	return fmt.Sprintf("the machine went off by itself while its guest booted: %v", w.because)
}

// limit is how long a promise may take, boots apart.
const limit = 10 * time.Minute

// try says whether the host keeps the promise.
func (p promise) try(ctx context.Context, b Bench) Result {
	ctx, cancel := context.WithTimeout(ctx, limit+4*b.Boot)
	defer cancel()
	r := Result{Promise: p.name, Needs: p.needs, Verdict: Kept}
	err := p.possible(ctx, b)
	if err == nil {
		err = p.keeps(ctx, b)
	}
	var off wentOff
	if errors.As(err, &off) && !p.asks {
		r.Reason = "tried twice: " + off.Error()
		err = b.clean(ctx)
		if err == nil {
			err = p.keeps(ctx, b)
		}
	}
	var why skip
	r.Void = errors.As(err, new(void))
	if r.Void {
		err = skip(err.Error())
	}
	switch {
	case errors.As(err, &why):
		r.Verdict, r.Reason = Skipped, string(why)
	case err != nil:
		r.Verdict, r.Reason = Broken, err.Error()
	}
	return r
}

// possible says why the promise cannot be tried on the bench.
func (p promise) possible(ctx context.Context, b Bench) error {
	d, err := b.Host.Describe(ctx)
	if err != nil {
		return err
	}
	for _, c := range append([]estate.Capability{p.needs}, p.with...) {
		if report := d.CanFor(b.GuestType, c); c != "" && !report.Has {
			return skip(fmt.Sprintf("the host does not declare %q: %s", c, report.Reason))
		}
	}
	if report := d.CanFor(b.GuestType, p.also); p.also != "" && !report.Has {
		return void(fmt.Sprintf("it says nothing of hosts without %q", p.also))
	}
	if p.os && !b.OS {
		return skip("the base holds no operating system")
	}
	return nil
}

// clean deletes the machines of the suite.
func (b Bench) clean(ctx context.Context) error {
	var errs []error
	for _, h := range []driver.Host{b.Host, b.Other} {
		for _, id := range Scratch() {
			if h != nil {
				errs = append(errs, h.Delete(ctx, id))
			}
		}
	}
	if c, ok := driver.As[driver.Cloner](b.Host); ok {
		for _, name := range []string{"a", "b", "c"} {
			errs = append(errs, c.DropTemplate(ctx, name))
		}
	}
	if err := errors.Join(append(errs, b.holds(ctx)())...); err != nil {
		return fmt.Errorf("the host cannot be emptied: %w", err)
	}
	return nil
}
