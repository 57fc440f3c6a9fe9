package drivertest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/presentation/driver"
	"consort.dev/consort/presentation/fakescreen"
)

// liar is a good provider with something replaced.
type liar struct {
	fakescreen.Provider
	describe func(estate.PresentationOffer) estate.PresentationOffer
	secret   func() string
	file     func(driver.File) (driver.File, error)
	serve    func(ctx context.Context, s driver.Session, good serveFunc) error
}

type serveFunc func(context.Context, driver.Session) error

func (l *liar) Describe(ctx context.Context) (estate.PresentationOffer, error) {
	o, err := l.Provider.Describe(ctx)
	if l.describe != nil {
		o = l.describe(o)
	}
	return o, err
}

func (l *liar) NewSecret(random io.Reader) (string, error) {
	if l.secret != nil {
		return l.secret(), nil
	}
	return l.Provider.NewSecret(random)
}

func (l *liar) File(ctx context.Context, h driver.Handoff) (driver.File, error) {
	f, err := l.Provider.File(ctx, h)
	if l.file != nil {
		return l.file(f)
	}
	return f, err
}

func (l *liar) Serve(ctx context.Context, s driver.Session) error {
	if l.serve != nil {
		return l.serve(ctx, s, l.Provider.Serve)
	}
	return l.Provider.Serve(ctx, s)
}

// with changes the session before it is served.
func with(change func(*driver.Session)) *liar {
	return &liar{serve: func(ctx context.Context, s driver.Session, good serveFunc) error {
		change(&s)
		return good(ctx, s)
	}}
}

// says replaces what Serve returns.
func says(what func(err error, last driver.EventName) error) *liar {
	return &liar{serve: func(ctx context.Context, s driver.Session, good serveFunc) error {
		var last driver.EventName
		report := s.Report
		s.Report = func(e driver.Event) { last = e.Name; report(e) }
		return what(good(ctx, s), last)
	}}
}

// silent never reports the event.
func silent(name driver.EventName) *liar {
	return with(func(s *driver.Session) {
		report := s.Report
		s.Report = func(e driver.Event) {
			if e.Name != name {
				report(e)
			}
		}
	})
}

// writes lets through the whole lines that keep says.
type writes struct {
	io.ReadWriteCloser
	keep func(line string) bool
}

func (w *writes) Write(b []byte) (int, error) {
	if !w.keep(string(b)) {
		return len(b), nil
	}
	return w.ReadWriteCloser.Write(b)
}

// reads hands out other lines than came.
type reads struct {
	io.ReadWriteCloser
	r io.Reader
}

func (r *reads) Read(b []byte) (int, error) { return r.r.Read(b) }

func rewrite(c io.ReadWriteCloser, change func(line string) string) io.ReadWriteCloser {
	pr, pw := io.Pipe()
	go func() {
		in := bufio.NewReader(c)
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				pw.CloseWithError(io.EOF)
				return
			}
			io.WriteString(pw, change(line))
		}
	}()
	return &reads{c, pr}
}

type neverCloses struct{ io.ReadWriteCloser }

func (neverCloses) Close() error { return nil }

// mixer sends every key to the machine that came last.
type mixer struct {
	fakescreen.Provider
	mu   sync.Mutex
	last io.Writer
}

func (m *mixer) Serve(ctx context.Context, s driver.Session) error {
	m.mu.Lock()
	m.last = s.Machine
	m.mu.Unlock()
	own := s.Machine
	s.Machine = &writes{own, func(line string) bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		if strings.HasPrefix(line, "key") && m.last != own {
			io.WriteString(m.last, line)
			return false
		}
		return true
	}}
	return m.Provider.Serve(ctx, s)
}

// crowd writes to one viewer at a time.
type crowd struct {
	fakescreen.Provider
	once sync.Once
	turn chan struct{} // made on the fake time it is used on
}

func (c *crowd) Serve(ctx context.Context, s driver.Session) error {
	c.once.Do(func() { c.turn = make(chan struct{}, 1) })
	own := s.Viewer
	s.Viewer = &writes{own, func(line string) bool {
		c.turn <- struct{}{}
		io.WriteString(own, line)
		<-c.turn
		return false
	}}
	return c.Provider.Serve(ctx, s)
}

func liars() map[string]driver.Provider {
	describes := 0
	return map[string]driver.Provider{
		"DescribeNeverChanges": &liar{describe: func(o estate.PresentationOffer) estate.PresentationOffer {
			describes++
			o.Version = fmt.Sprint(describes)
			return o
		}},
		"DescribeNamesItself": &liar{describe: func(o estate.PresentationOffer) estate.PresentationOffer {
			o.Protocol = ""
			return o
		}},
		"PicturesReachTheViewer": with(func(s *driver.Session) {
			pictures := 0
			s.Viewer = &writes{s.Viewer, func(line string) bool {
				pictures++
				return pictures < 2
			}}
		}),
		"KeysReachTheMachine": with(func(s *driver.Session) {
			s.Machine = &writes{s.Machine, func(line string) bool { return !strings.HasPrefix(line, "key") }}
		}),
		"ViewerThatLeavesIsSuccess": says(func(err error, last driver.EventName) error {
			if last == driver.ViewerGone {
				return errors.New("the viewer left")
			}
			return err
		}),
		"MachineThatLeavesIsSuccess": says(func(err error, last driver.EventName) error {
			if last == driver.MachineGone {
				return errors.New("the machine left")
			}
			return err
		}),
		"ContextThatEndsIsReturned": says(func(error, driver.EventName) error { return nil }),
		"ContextThatEndsIsNoticedSoon": &liar{serve: func(ctx context.Context, s driver.Session, good serveFunc) error {
			err := good(ctx, s)
			if ctx.Err() != nil {
				time.Sleep(1500 * time.Millisecond)
			}
			return err
		}},
		"ViewersEndIsClosed":          with(func(s *driver.Session) { s.Viewer = neverCloses{s.Viewer} }),
		"MachinesEndIsClosed":         with(func(s *driver.Session) { s.Machine = neverCloses{s.Machine} }),
		"ViewersBreachIsItsOwn":       says(func(error, driver.EventName) error { return nil }),
		"MachinesBreachIsUnavailable": says(func(err error, _ driver.EventName) error { return fault.Invalid.Errorf("%w", err) }),
		"SecretOpens":                 with(func(s *driver.Session) { s.Secret += "x" }),
		"WrongSecretDoesNotOpen": with(func(s *driver.Session) {
			right := s.Secret
			s.Viewer = rewrite(s.Viewer, func(line string) string {
				if strings.HasPrefix(line, "secret ") {
					return fmt.Sprintf("secret %q\n", right)
				}
				return line
			})
		}),
		"SecretsDiffer":                    &liar{secret: func() string { return "always the same" }},
		"ViewOnlyTypesNothing":             with(func(s *driver.Session) { s.Policy.ViewOnly = false }),
		"NothingIsTypedBeforeItIsOwn":      with(func(s *driver.Session) { s.Own = nil }),
		"NothingIsPastedBeforeItIsOwn":     with(func(s *driver.Session) { s.Own = nil }),
		"NothingIsCopiedBeforeItIsOwn":     with(func(s *driver.Session) { s.Own = nil }),
		"KeysReachTheMachineOnceItIsOwn":   with(func(s *driver.Session) { s.Own = make(chan struct{}) }),
		"ClipboardGoesInWhereAllowed":      with(func(s *driver.Session) { s.Policy.Clipboard.In = false }),
		"ClipboardStaysOutWhereDenied":     with(func(s *driver.Session) { s.Policy.Clipboard.In = true }),
		"ClipboardGoesOutWhereAllowed":     with(func(s *driver.Session) { s.Policy.Clipboard.Out = false }),
		"ClipboardStaysInWhereDenied":      with(func(s *driver.Session) { s.Policy.Clipboard.Out = true }),
		"LongTextStaysOut":                 with(func(s *driver.Session) { s.Policy.Clipboard.MaxBytes = 0 }),
		"LongTextStaysIn":                  with(func(s *driver.Session) { s.Policy.Clipboard.MaxBytes = 0 }),
		"TextWaitsToBeAskedIn":             with(func(s *driver.Session) { s.Policy.Clipboard.Gesture = false }),
		"TextWaitsToBeAskedOut":            with(func(s *driver.Session) { s.Policy.Clipboard.Gesture = false }),
		"TextThatIsAskedForGoesIn":         deaf("in"),
		"TextThatIsAskedForGoesOut":        deaf("out"),
		"AskingLetsOneTextThrough":         generous(),
		"TextIsTakenBackFromTheMachine":    with(func(s *driver.Session) { s.Policy.Clipboard.TTL = 0 }),
		"TextIsTakenBackFromTheViewer":     with(func(s *driver.Session) { s.Policy.Clipboard.TTL = 0 }),
		"IdleSessionEnds":                  with(func(s *driver.Session) { s.Policy.Idle = 0 }),
		"IdleIsReported":                   silent(driver.Idle),
		"InputKeepsASessionGoing":          with(func(s *driver.Session) { s.Policy.Idle /= 2; untouched(s) }),
		"ReportMayBeNil":                   with(func(s *driver.Session) { s.Report(driver.Event{Name: driver.ViewerAccepted}) }),
		"EventsComeOneAtATime":             overlapping(),
		"AcceptedComesBeforeTheFirstFrame": silent(driver.ViewerAccepted),
		"NoPolicyIsRefusedThatIsOffered": &liar{serve: func(ctx context.Context, s driver.Session, good serveFunc) error {
			if s.Policy.Watermark != "" {
				s.Viewer.Close()
				s.Machine.Close()
				return fault.Unsupported.Errorf("it draws no watermark")
			}
			return good(ctx, s)
		}},
		"FirstFrameIsReported":  silent(driver.FirstFrame),
		"FirstInputIsReported":  silent(driver.FirstInput),
		"ViewerGoneIsReported":  silent(driver.ViewerGone),
		"MachineGoneIsReported": silent(driver.MachineGone),
		"FileIsThereWhenOffered": &liar{file: func(driver.File) (driver.File, error) {
			return driver.File{}, fault.Unsupported.Errorf("no file")
		}},
		"FileHasTheOfferedExtension": &liar{file: func(f driver.File) (driver.File, error) { f.Name = "desktop"; return f, nil }},
		"FileSaysWhere":              &liar{file: func(f driver.File) (driver.File, error) { f.Content = nil; return f, nil }},
		"SessionsDoNotMix":           &mixer{},

		"ViewerThatDoesNotReadHoldsUpNobody": &crowd{},
	}
}

// deaf does not hear when the viewer asks for a text that way.
func deaf(way string) *liar {
	return with(func(s *driver.Session) {
		s.Viewer = rewrite(s.Viewer, func(line string) string {
			if line == fmt.Sprintf("ask %q\n", way) {
				return "paste \"\"\n"
			}
			return line
		})
	})
}

// generous asks by itself once the viewer has.
func generous() *liar {
	return with(func(s *driver.Session) {
		asked := false
		s.Viewer = rewrite(s.Viewer, func(line string) string {
			asked = asked || strings.HasPrefix(line, "ask")
			if asked && strings.HasPrefix(line, "paste") {
				return line + "ask \"in\"\n"
			}
			return line
		})
	})
}

// untouched keeps every key from the provider, which then counts as idle.
func untouched(s *driver.Session) {
	s.Viewer = rewrite(s.Viewer, func(line string) string {
		if strings.HasPrefix(line, "key") {
			return "paste \"\"\n"
		}
		return line
	})
}

// overlapping reports from a goroutine for each event.
func overlapping() *liar {
	return &liar{serve: func(ctx context.Context, s driver.Session, good serveFunc) error {
		var wg sync.WaitGroup
		report := s.Report
		s.Report = func(e driver.Event) { wg.Go(func() { report(e) }) }
		defer wg.Wait()
		return good(ctx, s)
	}}
}

func rigOf(p driver.Provider) Rig {
	return Rig{
		Provider: p,
		Bound:    3 * time.Second,
		Machine:  func(c io.ReadWriteCloser) Machine { return fakescreen.StartMachine(c) },
		Viewer: func(c io.ReadWriteCloser, secret string) (Viewer, error) {
			return fakescreen.OpenViewer(c, secret)
		},
	}
}

// TestLiars breaks each promise in turn and wants the promise's check to say so.
func TestLiars(t *testing.T) {
	all := liars()
	for _, p := range promises {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			l, found := all[p.name]
			if !found {
				t.Fatal("no liar breaks this promise; write one")
			}
			// On fake time, so that slow liars cost none.
			synctest.Test(t, func(t *testing.T) {
				if p.keeps(t.Context(), rigOf(l)) == nil {
					t.Error("a broken provider passed")
				}
				if err := p.keeps(t.Context(), rigOf(new(fakescreen.Provider))); err != nil {
					t.Errorf("the good provider failed: %v", err)
				}
				time.Sleep(time.Minute) // what a liar left undone comes to its end
			})
		})
	}
	if len(all) != len(promises) {
		t.Errorf("%d liars for %d promises", len(all), len(promises))
	}
}
