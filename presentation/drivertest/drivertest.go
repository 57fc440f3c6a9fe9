// Package drivertest is what it means to be a presentation provider, as tests.
package drivertest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/presentation/driver"
)

// Rig is a provider and how to play its two ends in its protocol.
type Rig struct {
	Provider driver.Provider
	// Machine plays a machine on conn until conn ends.
	Machine func(conn io.ReadWriteCloser) Machine
	// Viewer opens a session on conn, showing the secret, and returns once the
	// first picture has come.
	Viewer func(conn io.ReadWriteCloser, secret string) (Viewer, error)
	// Bound is how long anything may take that the contract does not bound
	// itself; 10 s when 0.
	Bound time.Duration
}

func (r *Rig) bound() time.Duration {
	if r.Bound == 0 {
		return 10 * time.Second
	}
	return r.Bound
}

// Machine is a machine that is played.
type Machine interface {
	Typed() string          // keys that arrived, in order
	Pasted() string         // clipboard text that arrived last
	Copy(text string) error // puts a text on the desktop's clipboard
	Break() error           // says what the protocol forbids
}

// Viewer is a viewer that is played. What it and the machine have sent before
// Look is called has arrived when Look returns.
type Viewer interface {
	Look() error // asks for a picture and waits for it
	Type(key byte) error
	Paste(text string) error
	Copied() string    // clipboard text that arrived last
	Ask(in bool) error // asks for the text that is held on its way in, or out
	Break() error      // says what the protocol forbids
}

// Run tests the provider in the rig that open returns. It calls open once for
// each promise.
func Run(t *testing.T, open func(*testing.T) Rig) {
	for _, p := range promises {
		t.Run(p.name, func(t *testing.T) {
			rig := open(t)
			if p.needs != nil && !p.needs(rig.Provider) {
				t.Skip("the provider has not the ability this is about")
			}
			if err := p.keeps(t.Context(), rig); err != nil {
				t.Error(err)
			}
		})
	}
}

// A promise is one sentence of package driver. It is checked by a function that
// returns an error, so that the checks can be checked: see TestLiars.
type promise struct {
	name  string
	needs func(driver.Provider) bool
	keeps func(context.Context, Rig) error
}

var promises = []promise{
	{"DescribeNeverChanges", nil, describeNeverChanges},
	{"DescribeNamesItself", nil, describeNamesItself},
	{"PicturesReachTheViewer", nil, picturesReachTheViewer},
	{"KeysReachTheMachine", nil, keysReachTheMachine},
	{"ViewerThatLeavesIsSuccess", nil, viewerThatLeavesIsSuccess},
	{"MachineThatLeavesIsSuccess", nil, machineThatLeavesIsSuccess},
	{"ContextThatEndsIsReturned", nil, contextThatEndsIsReturned},
	{"ContextThatEndsIsNoticedSoon", nil, contextThatEndsIsNoticedSoon},
	{"ViewersEndIsClosed", nil, viewersEndIsClosed},
	{"MachinesEndIsClosed", nil, machinesEndIsClosed},
	{"ViewersBreachIsItsOwn", nil, viewersBreachIsItsOwn},
	{"MachinesBreachIsUnavailable", nil, machinesBreachIsUnavailable},
	{"SecretOpens", shows, secretOpens},
	{"WrongSecretDoesNotOpen", shows, wrongSecretDoesNotOpen},
	{"SecretsDiffer", shows, secretsDiffer},
	{"ViewOnlyTypesNothing", nil, viewOnlyTypesNothing},
	{"NothingIsTypedBeforeItIsOwn", nil, nothingTypedBeforeOwn},
	{"NothingIsPastedBeforeItIsOwn", nil, nothingPastedBeforeOwn},
	{"NothingIsCopiedBeforeItIsOwn", nil, nothingCopiedBeforeOwn},
	{"KeysReachTheMachineOnceItIsOwn", nil, keysReachOnceOwn},
	{"ClipboardGoesInWhereAllowed", nil, clipboardGoesIn},
	{"ClipboardStaysOutWhereDenied", nil, clipboardStaysOut},
	{"ClipboardGoesOutWhereAllowed", nil, clipboardGoesOut},
	{"ClipboardStaysInWhereDenied", nil, clipboardStaysIn},
	{"LongTextStaysOut", nil, longTextStaysOut},
	{"LongTextStaysIn", nil, longTextStaysIn},
	{"TextWaitsToBeAskedIn", nil, textWaitsIn},
	{"TextWaitsToBeAskedOut", nil, textWaitsOut},
	{"TextThatIsAskedForGoesIn", nil, askedTextGoesIn},
	{"TextThatIsAskedForGoesOut", nil, askedTextGoesOut},
	{"AskingLetsOneTextThrough", nil, askingLetsOneThrough},
	{"TextIsTakenBackFromTheMachine", nil, textIsTakenBack},
	{"TextIsTakenBackFromTheViewer", nil, textIsTakenBackOut},
	{"IdleSessionEnds", nil, idleSessionEnds},
	{"IdleIsReported", nil, idleIsReported},
	{"InputKeepsASessionGoing", nil, inputKeepsGoing},
	{"ReportMayBeNil", nil, reportMayBeNil},
	{"EventsComeOneAtATime", nil, eventsComeOneAtATime},
	{"AcceptedComesBeforeTheFirstFrame", nil, acceptedComesFirst},
	{"NoPolicyIsRefusedThatIsOffered", keeps, refusesNoPolicy},
	{"FirstFrameIsReported", nil, reports(driver.FirstFrame, nothing)},
	{"FirstInputIsReported", nil, reports(driver.FirstInput, typing)},
	{"ViewerGoneIsReported", nil, reports(driver.ViewerGone, leaving)},
	{"MachineGoneIsReported", nil, reports(driver.MachineGone, dying)},
	{"FileIsThereWhenOffered", nil, fileWhenOffered},
	{"FileHasTheOfferedExtension", hasFile, fileHasExtension},
	{"FileSaysWhere", hasFile, fileSaysWhere},
	{"SessionsDoNotMix", nil, sessionsDoNotMix},
	{"ViewerThatDoesNotReadHoldsUpNobody", nil, stuckViewerHoldsUpNobody},
}

func shows(p driver.Provider) bool { _, ok := driver.As[driver.Secreter](p); return ok }

func hasFile(p driver.Provider) bool {
	o, err := p.Describe(context.Background())
	return err == nil && o.File != ""
}

func keeps(p driver.Provider) bool {
	o, err := p.Describe(context.Background())
	return err == nil && o.Keeps
}

// everything is a policy that allows all.
func everything() driver.Policy {
	return driver.Policy{Clipboard: estate.Clipboard{In: true, Out: true}}
}

// limited is a policy that bounds the clipboard.
func limited() driver.Policy {
	return driver.Policy{Clipboard: estate.Clipboard{In: true, Out: true, MaxBytes: longest}}
}

// longest is the longest text that may cross in these tests.
const longest = 100

// play is a session at work.
type play struct {
	machine  Machine
	viewer   Viewer
	viewing  *wire // the viewer's own end
	machines *wire // the machine's own end
	given    [2]*wire
	done     chan error
	bound    time.Duration

	mu      sync.Mutex
	events  []driver.Event
	inside  int
	overlap bool
}

// start begins a session and opens the viewer. It does not fail where Serve
// refuses: then opened says what the viewer saw.
func start(ctx context.Context, rig Rig, s driver.Session, secret string) (p *play, opened error) {
	p = &play{done: make(chan error, 1), bound: rig.bound()}
	p.viewing, p.given[0] = newPair()
	p.machines, p.given[1] = newPair()
	s.Viewer, s.Machine = p.given[0], p.given[1]
	s.Title = "a desktop"
	if s.Report == nil {
		s.Report = p.report
	}
	p.machine = rig.Machine(p.machines)
	go func() { p.done <- rig.Provider.Serve(ctx, s) }()
	type result struct {
		v   Viewer
		err error
	}
	got := make(chan result, 1)
	go func() {
		v, err := rig.Viewer(p.viewing, secret)
		got <- result{v, err}
	}()
	select {
	case r := <-got:
		p.viewer = r.v
		return p, r.err
	case <-time.After(p.bound):
		p.leave()
		return p, errors.New("no picture came")
	}
}

func (p *play) report(e driver.Event) {
	p.mu.Lock()
	p.inside++
	p.overlap = p.overlap || p.inside > 1
	p.events = append(p.events, e)
	p.mu.Unlock()
	time.Sleep(time.Millisecond) // long enough for another to come in
	p.mu.Lock()
	p.inside--
	p.mu.Unlock()
}

// leave ends both actors.
func (p *play) leave() {
	p.viewing.Close()
	p.machines.Close()
}

// result returns what Serve returned.
func (p *play) result() error {
	select {
	case err := <-p.done:
		return err
	case <-time.After(p.bound):
		return errors.New("Serve did not return")
	}
}

// finish leaves and waits.
func (p *play) finish() error {
	p.leave()
	return p.result()
}

// within begins a session with the policy, does the deed and ends it.
func within(ctx context.Context, rig Rig, policy driver.Policy, deed func(*play) error) error {
	return during(ctx, rig, driver.Session{Policy: policy}, deed)
}

// during is within for a session of which more than the policy is given.
func during(ctx context.Context, rig Rig, s driver.Session, deed func(*play) error) error {
	p, err := start(ctx, rig, s, "")
	if err != nil {
		refused := p.finish()
		if errors.Is(refused, fault.Unsupported) {
			return errRefused
		}
		return fmt.Errorf("open: %w (Serve = %v)", err, refused)
	}
	err = timed(p.bound, func() error { return deed(p) })
	return errors.Join(err, p.finish())
}

// errRefused says that the provider does not serve under such a policy, which
// keeps it.
var errRefused = errors.New("the provider refuses this policy")

// timed bounds a deed that may wait for what never comes.
func timed(bound time.Duration, deed func() error) error {
	got := make(chan error, 1)
	go func() { got <- deed() }()
	select {
	case err := <-got:
		return err
	case <-time.After(bound):
		return errors.New("what should have come never came")
	}
}

// eventually waits until what is so.
func (p *play) eventually(say string, what func() bool) error {
	for end := time.Now().Add(p.bound / 2); !what(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("never: %s", say)
		}
	}
	return nil
}

func isKind(err error, kinds ...fault.Kind) error {
	for _, k := range kinds {
		if fault.KindOf(err) == k && err != nil {
			return nil
		}
	}
	return fmt.Errorf("error %v is %v, want one of %v", err, fault.KindOf(err), kinds)
}

func newSecret(p driver.Provider) (string, error) {
	s, ok := driver.As[driver.Secreter](p)
	if !ok {
		return "", errors.New("no Secreter")
	}
	return s.NewSecret(rand.Reader)
}
