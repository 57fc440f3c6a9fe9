package fronts

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

var shop = estate.Ref{Kind: "Service", Project: "p", Name: "shop"}

// stand is a row before one replica, which says who dialled whom.
func stand(t *testing.T) (row *Row, dialled chan string) {
	replica := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }))
	dialled = make(chan string, 1000)
	row = New(Options{Host: "127.0.0.1", Log: slog.New(slog.DiscardHandler), Dial: func(ctx context.Context, host string, id estate.MachineID, port int) (net.Conn, error) {
		select {
		case dialled <- host + "/" + string(id):
		default:
		}
		return new(net.Dialer).DialContext(ctx, "tcp", replica.Listener.Addr().String())
	}})
	t.Cleanup(func() { row.Close(); replica.Close() })
	return row, dialled
}

func spec(t *testing.T) *estate.ServiceSpec {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return &estate.ServiceSpec{
		Front: estate.FrontSpec{Port: l.Addr().(*net.TCPAddr).Port}, Probe: estate.Probe{Path: "/", Interval: estate.Duration(50 * time.Millisecond)},
		Levels: []estate.NamedLevel{{Name: "fast", Level: estate.Level{Response: &estate.Response{Within: estate.Duration(10 * time.Second)}}}},
	}
}

func one() []Replica {
	r := Replica{ID: "uid-1", Hypervisor: "h1"}
	r.Name, r.Port = "shop-1", 80
	return []Replica{r}
}

// ask asks once with a connection of its own.
func ask(t *testing.T, address string) (int, string) {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}
	res, err := c.Get("http://" + address + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(text)
}

func total(row *Row) int64 {
	sight, ok := row.Figures(shop)
	if !ok || len(sight.Objectives) == 0 {
		return -1
	}
	return sight.Objectives[0].Total
}

func keep(t *testing.T, row *Row, s *estate.ServiceSpec) string {
	t.Helper()
	at, err := row.Keep(shop, s, one())
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func TestARequestReachesTheReplicaThroughItsHost(t *testing.T) {
	row, dialled := stand(t)
	if _, ok := row.Figures(shop); ok {
		t.Error("a service that nobody keeps has figures")
	}
	if status, text := ask(t, keep(t, row, spec(t))); status != 200 || text != "hello" {
		t.Errorf("got %d %q, want 200 hello", status, text)
	}
	if to := <-dialled; to != "h1/uid-1" {
		t.Errorf("dialled %s, want h1/uid-1", to)
	}
	if n := total(row); n != 1 {
		t.Errorf("%d requests counted for the level, want 1", n)
	}
	if n := len(row.Fronts()); n != 1 {
		t.Errorf("%d fronts to publish, want 1", n)
	}
}

func TestKeepingAgainCountsOnAndAnotherProbeBeginsAnew(t *testing.T) {
	row, _ := stand(t)
	s := spec(t)
	at := keep(t, row, s)
	ask(t, at)
	first, _ := row.Figures(shop)
	if again := keep(t, row, s); again != at || total(row) != 1 {
		t.Errorf("kept again: at %s with %d counted, want %s with 1", again, total(row), at)
	}
	changed := *s
	changed.Probe.Path = "/up"
	if moved := keep(t, row, &changed); moved != at {
		t.Errorf("with another probe it listens at %s, want %s", moved, at)
	}
	second, _ := row.Figures(shop)
	if total(row) != 0 || second.Began.Equal(first.Began) {
		t.Errorf("with another probe %d are counted since %s, want 0 since another time", total(row), second.Began)
	}
	if status, _ := ask(t, at); status != 200 {
		t.Errorf("the new front answers %d, want 200", status)
	}
}

func TestAPortThatIsTakenIsAConflict(t *testing.T) {
	row, _ := stand(t)
	s := spec(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s.Front.Port = l.Addr().(*net.TCPAddr).Port
	if _, err := row.Keep(shop, s, one()); !errors.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "choose another spec.front.port") {
		t.Errorf("got %v, want a conflict that says what to change", err)
	}
	l.Close()
	if status, _ := ask(t, keep(t, row, s)); status != 200 {
		t.Errorf("once it is free: %d, want 200", status)
	}
}

func TestAServiceThatEndsListensNoMore(t *testing.T) {
	row, _ := stand(t)
	at := keep(t, row, spec(t))
	row.End(shop)
	row.End(shop) // nothing more
	if c, err := net.Dial("tcp", at); err == nil {
		c.Close()
		t.Error("it still listens")
	}
	if _, ok := row.Figures(shop); ok {
		t.Error("it still has figures")
	}
}

func TestAClosedRowOpensNothing(t *testing.T) {
	row, _ := stand(t)
	at := keep(t, row, spec(t))
	row.Close()
	if c, err := net.Dial("tcp", at); err == nil {
		c.Close()
		t.Error("it still listens")
	}
	if _, err := row.Keep(shop, spec(t), one()); !errors.Is(err, fault.Unavailable) {
		t.Errorf("got %v, want unavailable", err)
	}
}

// TestWhatALevelCounts: one without a bound counts failures alone, and what a
// metrics server measures is not the front's.
func TestWhatALevelCounts(t *testing.T) {
	s := spec(t)
	s.Levels = append(s.Levels,
		estate.NamedLevel{Name: "good", Level: estate.Level{Response: &estate.Response{}}},
		estate.NamedLevel{Name: "elsewhere", Level: estate.Level{Response: &estate.Response{Measured: &estate.Indicator{}}}},
		estate.NamedLevel{Name: "busy", Level: estate.Level{}})
	got := objectives(s)
	if len(got) != 2 || got[0].Name != "fast" || got[0].Bound != 10*time.Second || got[1].Name != "good" || got[1].Bound < time.Hour {
		t.Errorf("got %+v, want fast within 10s and good within any time", got)
	}
}
