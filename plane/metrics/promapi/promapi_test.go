package promapi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"consort.dev/consort/fault"
	"consort.dev/consort/plane/metrics"
)

// server starts the Debian package's Prometheus, which scrapes a target.
func server(t *testing.T, target string) *Source {
	t.Helper()
	program, err := exec.LookPath("prometheus")
	if err != nil {
		t.Skip("needs the Debian package prometheus; 'make test-deps' installs it")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	text := fmt.Sprintf("scrape_configs: [{job_name: shop, scrape_interval: 100ms, static_configs: [{targets: [%q]}]}]\n", target)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+at, "--log.level=error")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Wait() })
	s, err := New("http://"+at, http.DefaultClient)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestARealServerAnswers(t *testing.T) {
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, `orders_total{service="shop"} 42`)
	}))
	defer target.Close()
	s := server(t, target.Listener.Addr().String())
	got := await(t, s, "orders_total")
	if len(got[0].Points) != 1 || got[0].Points[0].Value != 42 || got[0].Labels["service"] != "shop" || got[0].Labels[metrics.Name] != "orders_total" {
		t.Errorf("%v, want 42 of shop", got)
	}
	now := got[0].Points[0].At
	over, err := s.QueryRange(t.Context(), "vector(7)", metrics.Range{From: now.Add(-time.Minute), To: now, Step: 20 * time.Second})
	if err != nil || len(over) != 1 || len(over[0].Points) != 4 || !over[0].Points[3].At.Equal(now) {
		t.Errorf("a range: %v, %v; want four points until %s", over, err, now)
	}
	for promql, want := range map[string]string{"7": "7", "0/0": "NaN", "-1/0": "-Inf"} {
		if got, err := s.Query(t.Context(), promql, now); err != nil || len(got) != 1 || fmt.Sprint(got[0].Points[0].Value) != want {
			t.Errorf("%s: %v, %v", promql, got, err)
		}
	}
	for _, promql := range []string{"sum(", `label_replace(orders_total, "x", "$1", "y", "(")`, `"text"`} {
		if _, err := s.Query(t.Context(), promql, now); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", promql, err)
		}
	}
}

// await asks until something is there.
func await(t *testing.T, s *Source, promql string) []metrics.Series {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	beat := time.NewTicker(50 * time.Millisecond)
	defer beat.Stop()
	for {
		got, err := s.Query(ctx, promql, time.Now())
		if err == nil && len(got) > 0 {
			return got
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: nothing within a minute: %v", promql, err)
		case <-beat.C:
		}
	}
}

func TestWhatIsNoServerIsUnavailable(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"a page": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") },
		"overload": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"status":"error","errorType":"timeout","error":"slow"}`)
		},
		"no number": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"status":"success","data":{"resultType":"scalar","result":[1,"x"]}}`)
		},
		"another answer": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"status":"success","data":{"resultType":"vector","result":3}}`)
		},
	} {
		at := httptest.NewServer(h)
		s, err := New(at.URL+"/", at.Client())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Query(t.Context(), "up", time.Now()); !errors.Is(err, fault.Unavailable) {
			t.Errorf("%s: %v", name, err)
		}
		at.Close()
		if _, err := s.Query(t.Context(), "up", time.Now()); !errors.Is(err, fault.Unavailable) {
			t.Errorf("%s, and gone: %v", name, err)
		}
	}
	for _, at := range []string{"", "127.0.0.1:9090", "ftp://x", "http://"} {
		if _, err := New(at, http.DefaultClient); !errors.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", at, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add("vector", []byte(`[{"metric":{"a":"b"},"value":[1.5,"2"]}]`))
	f.Add("matrix", []byte(`[{"metric":{},"values":[[1,"2"],[3,"NaN"]]}]`))
	f.Add("scalar", []byte(`[1,"+Inf"]`))
	f.Fuzz(func(t *testing.T, kind string, result []byte) {
		var a answer
		a.Data.Type, a.Data.Result = kind, result
		all, err := read(a)
		for _, s := range all {
			if err == nil && len(s.Points) > len(result) {
				t.Errorf("%d points out of %d bytes", len(s.Points), len(result))
			}
		}
	})
}
