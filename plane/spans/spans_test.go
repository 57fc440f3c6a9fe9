package spans

import (
	"bytes"
	"context"
	"encoding/hex"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/store"
	"consort.dev/consort/plane/store/mem"
)

// world is a store, a collector of traces, and a teller that runs.
type world struct {
	*testing.T
	store     *store.Store
	teller    *Teller
	collector *httptest.Server

	later atomic.Int64 // nanoseconds that the clock is ahead

	mu    sync.Mutex
	spans []*otlp.Span
}

func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.later.Load())) }

func newWorld(t *testing.T) *world {
	w := &world{T: t}
	w.store = store.New(mem.Open(mem.Options{}), store.Options{Now: w.now})
	t.Cleanup(func() { w.store.Close() })
	w.collector = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		var req collector.ExportTraceServiceRequest
		b, err := io.ReadAll(r.Body)
		if err == nil {
			err = proto.Unmarshal(b, &req)
		}
		if err != nil || r.URL.Path != "/v1/traces" {
			http.Error(rw, "no traces", http.StatusBadRequest)
			return
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, rs := range req.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				w.spans = append(w.spans, ss.Spans...)
			}
		}
	}))
	t.Cleanup(w.collector.Close)
	return w
}

// run starts a teller and returns what ends it, with everything sent.
func (w *world) run(otlp string, log io.Writer) (end func()) {
	w.Helper()
	var err error
	w.teller, err = New(w.Context(), Options{Store: w.store, OTLP: otlp, Version: "1", Now: w.now, Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		w.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.Context())
	var running sync.WaitGroup
	running.Go(func() { w.teller.Loop().Run(ctx) })
	return func() {
		cancel()
		running.Wait()
		if err := w.teller.Close(context.Background()); err != nil {
			w.Error(err)
		}
	}
}

// session stores one whose phases took so long, the last until now.
func (w *world) session(name string, phases map[string]time.Duration, order ...string) *estate.Session {
	w.Helper()
	s := &estate.Session{Head: estate.Head{APIVersion: estate.APIVersion, Kind: "Session", Metadata: estate.Metadata{Name: name, Project: "default"}}}
	s.Spec = estate.SessionSpec{Desktop: "d", Person: "ana"}
	s.Status.Machine, s.Status.Way = "m", estate.Presentation{Name: "paper"}
	if err := w.store.Create(w.Context(), s); err != nil {
		w.Fatal(err)
	}
	at := s.Metadata.Created
	for _, n := range order {
		p := estate.Phase{Name: n, Began: at}
		if d := phases[n]; d > 0 {
			at = at.Add(d)
			p.Ended = at
		}
		s.Status.Phases = append(s.Status.Phases, p)
	}
	if err := w.store.Update(w.Context(), s); err != nil {
		w.Fatal(err)
	}
	return s
}

func (w *world) machine() {
	w.Helper()
	m := &estate.Machine{Head: estate.Head{APIVersion: estate.APIVersion, Kind: "Machine", Metadata: estate.Metadata{Name: "m", Project: "default"}}}
	m.Spec = estate.MachineSpec{Hypervisor: "h", Power: estate.On, Hardware: estate.Hardware{CPUs: 1, Memory: estate.GiB, Disks: []estate.Disk{{Name: "root", Size: estate.GiB}}}}
	if err := w.store.Create(w.Context(), m); err != nil {
		w.Fatal(err)
	}
}

// page waits until the page for Prometheus has each line, and returns it.
func (w *world) page(lines ...string) string {
	w.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		r := httptest.NewRecorder()
		seen := prometheus.NewRegistry()
		seen.MustRegister(w.teller)
		promhttp.HandlerFor(seen, promhttp.HandlerOpts{}).ServeHTTP(r, httptest.NewRequest("GET", "/metrics", nil))
		text, missing := r.Body.String(), ""
		for _, l := range lines {
			if !strings.Contains(text, l+"\n") {
				missing = l
			}
		}
		if missing == "" {
			return text
		}
		if time.Now().After(end) {
			w.Fatalf("the page has no line %q:\n%s", missing, text)
		}
	}
}

var took = map[string]time.Duration{"boot": 200 * time.Millisecond, estate.TicketUsed: 30 * time.Millisecond, estate.FirstFrame: 40 * time.Millisecond}

func TestAConnectIsATraceAndInTheHistograms(t *testing.T) {
	w := newWorld(t)
	end := w.run(w.collector.URL, io.Discard)
	w.machine()
	s := w.session("s", took, "boot", estate.TicketUsed, estate.FirstFrame)
	text := w.page(
		`vdi_session_connects_total{outcome="shown"} 1`,
		`vdi_session_connect_duration_seconds_sum{hypervisor="h"} 0.27`,
		`vdi_session_connect_phase_duration_seconds_bucket{hypervisor="h",phase="boot",le="0.1"} 0`,
		`vdi_session_connect_phase_duration_seconds_bucket{hypervisor="h",phase="boot",le="0.25"} 1`,
	)
	end()
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("Prometheus's own judge says %v, %v", problems, err)
	}

	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.spans) != 4 {
		t.Fatalf("%d spans came, want the whole and three phases", len(w.spans))
	}
	byName := map[string]*otlp.Span{}
	for _, sp := range w.spans {
		byName[sp.Name] = sp
		if got, want := hex.EncodeToString(sp.TraceId), strings.ReplaceAll(s.Metadata.UID, "-", ""); got != want {
			t.Errorf("span %s is of trace %s, want the session's %s", sp.Name, got, want)
		}
	}
	whole := byName["connect"]
	if got := time.Duration(whole.GetEndTimeUnixNano() - whole.GetStartTimeUnixNano()); got != 270*time.Millisecond {
		t.Errorf("the whole took %v, want 270ms", got)
	}
	for name, want := range took {
		sp := byName[name]
		if got := time.Duration(sp.GetEndTimeUnixNano() - sp.GetStartTimeUnixNano()); got != want || !bytes.Equal(sp.GetParentSpanId(), whole.GetSpanId()) {
			t.Errorf("phase %s took %v in %x, want %v in %x", name, got, sp.GetParentSpanId(), want, whole.GetSpanId())
		}
	}
}

func TestAConnectIsToldOnce(t *testing.T) {
	w := newWorld(t)
	end := w.run("", io.Discard)
	s := w.session("s", took, "boot", estate.FirstFrame)
	w.session("waits", took, "boot", "desktop")
	for range 5 { // a session changes long after it was shown
		_, err := store.Modify(t.Context(), w.store, "default", "s", func(s *estate.Session) error { s.Status.Because += "."; return nil })
		if err != nil {
			t.Fatal(err)
		}
	}
	w.session("last", took, "boot", estate.FirstFrame)
	w.page(`vdi_session_connects_total{outcome="shown"} 2`)
	end()

	// The next process tells of none that ended before it began.
	w.later.Add(int64(time.Minute))
	end = w.run("", io.Discard)
	defer end()
	if err := w.store.Delete(t.Context(), s.Ref(), 0); err != nil {
		t.Fatal(err)
	}
	w.session("s", took, "boot", estate.FirstFrame) // another of that name
	w.page(`vdi_session_connects_total{outcome="shown"} 1`)
}

func TestAConnectThatIsGivenUpIsCountedApart(t *testing.T) {
	w := newWorld(t)
	end := w.run("", io.Discard)
	defer end()
	w.session("s", took, "boot", "desktop")
	_, err := store.Modify(t.Context(), w.store, "default", "s", func(s *estate.Session) error {
		s.Status.State, s.Status.Ended = estate.SessionEnded, w.now()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	text := w.page(`vdi_session_connects_total{outcome="given up"} 1`)
	if strings.Contains(text, "connect_duration_seconds_count") {
		t.Errorf("its time is in a histogram:\n%s", text)
	}
}

// A collector that is down costs traces, a line in the log, and nothing else.
func TestACollectorThatIsDownIsLogged(t *testing.T) {
	w := newWorld(t)
	w.collector.Close()
	var log bytes.Buffer
	end := w.run(w.collector.URL, &log)
	w.session("s", took, "boot", estate.FirstFrame)
	w.page(`vdi_session_connects_total{outcome="shown"} 1`)
	end()
	if !strings.Contains(log.String(), "the collector does not take traces") {
		t.Errorf("the log says %q", log.String())
	}
}

func TestACollectorIsAURL(t *testing.T) {
	_, err := New(t.Context(), Options{OTLP: "127.0.0.1:4318", Now: time.Now})
	if fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), "http://127.0.0.1:4318") {
		t.Errorf("it says %v, want what to write", err)
	}
}

func TestAConnectIsToldWithWhatGoesOnBesideIt(t *testing.T) {
	w := newWorld(t)
	w.machine()
	end := w.run(w.collector.URL, io.Discard)
	s := w.session("s", map[string]time.Duration{"boot": time.Millisecond, estate.FirstFrame: time.Millisecond}, "boot", estate.FirstFrame, estate.IdentityReady)
	w.session("other", took, "boot", estate.FirstFrame)
	w.page(`vdi_session_connects_total{outcome="shown"} 1`)
	s.Status.Phases[2].Ended = s.Status.Phases[2].Began.Add(time.Second)
	if err := w.store.Update(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	w.page(`vdi_session_connects_total{outcome="shown"} 2`,
		`vdi_session_connect_phase_duration_seconds_count{hypervisor="h",phase="identity"} 1`)
	end()
}
