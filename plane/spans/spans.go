// Package spans tells whoever measures how long each Connect took, phase by
// phase: as a trace, and as histograms.
package spans

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/control"
	"consort.dev/consort/plane/store"
)

// Options are what a Teller is given.
type Options struct {
	Store   *store.Store
	OTLP    string // URL of a collector that takes OTLP over HTTP, as http://127.0.0.1:4318; no traces when empty
	Version string // of the product, in every trace
	Now     func() time.Time
	Log     *slog.Logger
}

// Teller tells of every Connect that ends while it runs, once. A session's
// status has the phases; nothing else is kept, so that what was told before a
// crash is not told again, and what ended in between is not told at all.
type Teller struct {
	Options
	began    time.Time
	provider *sdk.TracerProvider // nil without a collector
	counts   *counts

	mu   sync.Mutex
	told map[estate.Ref]string // UID of the session
}

// New returns a teller. Close sends what it has not sent yet.
func New(ctx context.Context, o Options) (*Teller, error) {
	t := &Teller{Options: o, began: o.Now(), counts: newCounts(), told: map[estate.Ref]string{}}
	if o.OTLP == "" {
		return t, nil
	}
	if !strings.HasPrefix(o.OTLP, "http://") && !strings.HasPrefix(o.OTLP, "https://") {
		return nil, fault.Invalid.Errorf("send traces to %q: give a URL, as http://127.0.0.1:4318", o.OTLP)
	}
	// A collector takes traces at this path (OTLP 1.9, "OTLP/HTTP Request").
	to, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(strings.TrimSuffix(o.OTLP, "/")+"/v1/traces"))
	if err != nil {
		return nil, fault.Invalid.Errorf("send traces to %q: %w", o.OTLP, err)
	}
	t.provider = sdk.NewTracerProvider(
		sdk.WithBatcher(quiet{to, o.Log}),
		sdk.WithIDGenerator(ids{}),
		sdk.WithResource(resource.NewSchemaless(attribute.String("service.name", "consort"), attribute.String("service.version", o.Version))),
	)
	return t, nil
}

// Close sends what is left and gives the collector up.
func (t *Teller) Close(ctx context.Context) error {
	if t.provider == nil {
		return nil
	}
	return t.provider.Shutdown(ctx)
}

// Loop follows sessions.
func (t *Teller) Loop() *control.Loop {
	return &control.Loop{
		Name: "spans", Store: t.Store, Kinds: []estate.Kind{"Session"}, Workers: 1, Step: t.step, Log: t.Log,
		Concerns: func(_ context.Context, changed estate.Resource) []estate.Ref {
			return []estate.Ref{changed.Header().Ref()}
		},
	}
}

// step tells of a session that has come to its end: the desktop was shown, or
// was waited for in vain.
func (t *Teller) step(ctx context.Context, ref estate.Ref) (time.Duration, error) {
	s, err := store.Get[estate.Session](ctx, t.Store, ref.Project, ref.Name)
	t.mu.Lock()
	defer t.mu.Unlock()
	if errors.Is(err, fault.NotFound) {
		delete(t.told, ref)
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	c, over := connectOf(s)
	if !over || t.told[ref] == s.Metadata.UID || c.ended.Before(t.began) {
		return 0, nil
	}
	if s.Status.Machine != "" {
		m, err := store.Get[estate.Machine](ctx, t.Store, ref.Project, s.Status.Machine)
		if err != nil && !errors.Is(err, fault.NotFound) {
			return 0, err
		}
		if err == nil {
			c.hypervisor = m.Spec.Hypervisor
		}
	}
	t.told[ref] = s.Metadata.UID
	t.counts.add(c)
	if t.provider != nil {
		t.send(c)
	}
	return 0, nil
}

// connect is one Connect that is over.
type connect struct {
	session    *estate.Session
	hypervisor string
	shown      bool // else it was given up
	ended      time.Time
	phases     []estate.Phase // those that ended
}

// connectOf returns the session's Connect, and whether it is over: with what
// goes on beside it, unless the session ends before.
func connectOf(s *estate.Session) (connect, bool) {
	c, whole := connect{session: s, ended: s.Status.Ended}, true
	for _, p := range s.Status.Phases {
		if p.Ended.IsZero() {
			whole = false
			continue
		}
		c.phases = append(c.phases, p)
		if p.Name == estate.FirstFrame {
			c.shown, c.ended = true, p.Ended
		}
	}
	return c, c.shown && whole || s.Status.State == estate.SessionEnded
}

// send makes a trace of it: one span for the whole, one in it for each phase.
func (t *Teller) send(c connect) {
	s := c.session
	tracer := t.provider.Tracer("consort.dev/consort")
	ctx, whole := tracer.Start(context.WithValue(context.Background(), sessionUID{}, s.Metadata.UID), "connect",
		trace.WithTimestamp(s.Metadata.Created), trace.WithSpanKind(trace.SpanKindServer),
		trace.WithAttributes(
			attribute.String("vdi.session.id", s.Metadata.UID),
			attribute.String("vdi.desktop.name", s.Metadata.Project+"/"+s.Spec.Desktop),
			attribute.String("vdi.presentation", s.Status.Way.Name),
			attribute.String("vdi.hypervisor", c.hypervisor),
			attribute.Bool("vdi.session.shown", c.shown),
		))
	for _, p := range c.phases {
		_, part := tracer.Start(ctx, p.Name, trace.WithTimestamp(p.Began))
		part.End(trace.WithTimestamp(p.Ended))
	}
	whole.End(trace.WithTimestamp(c.ended))
}

// sessionUID is the key of a context's session.
type sessionUID struct{}

// ids gives a trace the UID of its session, so that whoever has one finds the
// other. Spans have random IDs.
type ids struct{}

// NewIDs implements sdk.IDGenerator.
func (ids) NewIDs(ctx context.Context) (id trace.TraceID, span trace.SpanID) {
	uid, _ := ctx.Value(sessionUID{}).(string)
	if b, err := hex.DecodeString(strings.ReplaceAll(uid, "-", "")); err == nil && len(b) == len(id) {
		copy(id[:], b)
	} else {
		rand.Read(id[:]) // never fails: crypto/rand ends the program instead
	}
	rand.Read(span[:])
	return id, span
}

// NewSpanID implements sdk.IDGenerator.
func (ids) NewSpanID(context.Context, trace.TraceID) (span trace.SpanID) {
	rand.Read(span[:])
	return span
}

// quiet logs what a collector does not take; the SDK would write it to the
// process's standard error.
type quiet struct {
	sdk.SpanExporter
	log *slog.Logger
}

// ExportSpans implements sdk.SpanExporter.
func (q quiet) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	if err := q.SpanExporter.ExportSpans(ctx, spans); err != nil {
		q.log.Warn("the collector does not take traces", "lost", fmt.Sprintf("%d spans", len(spans)), "error", err)
	}
	return nil
}
