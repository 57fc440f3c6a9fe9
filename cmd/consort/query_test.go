package main

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"strings"
	"testing"

	"consort.dev/consort/api"
)

// TestPrometheusOwnToolAsksUs has Debian's promtool put questions to the plane.
func TestPrometheusOwnToolAsksUs(t *testing.T) {
	tool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed; make test-deps does")
	}
	h, err := newHouse(t.Cleanup)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: "localhost"})
	proxy.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", h.socket)
	}}
	door := httptest.NewServer(proxy)
	defer door.Close()
	for _, c := range []struct {
		name string
		args []string
		want string
		fail bool
	}{
		{"now", []string{"instant", door.URL + api.MetricsPath, "consort_pool_queue"}, `consort_pool_queue{pool="clerks", project="default"} => 6 @`, false},
		{"over a time", []string{"range", door.URL + api.MetricsPath, "max_over_time(consort_pool_queue[5m])"}, "6 @[", false},
		{"a mistake", []string{"instant", door.URL + api.MetricsPath, "sum("}, "bad_data: ask for measurements", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, err := exec.CommandContext(t.Context(), tool, append([]string{"query"}, c.args...)...).CombinedOutput()
			if (err != nil) != c.fail || !strings.Contains(string(out), c.want) {
				t.Errorf("promtool query %s: %v\n%swant %q", strings.Join(c.args, " "), err, out, c.want)
			}
		})
	}
}
