package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/internal/rfb"
	"consort.dev/consort/plane/store"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTicketOpensTheDesktopOnce(t *testing.T) {
	w := newWorld(t)
	s := w.session(t, "one")
	ticket := w.ticket(t, s)
	c, _, err := w.dial(ticket, nil)
	if err != nil {
		t.Fatal(err)
	}
	v, err := look(c, rfb.Proof{})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := v.Image().Pix[:3], []byte{0x30, 0x20, 0x10}; !bytes.Equal(got, want) {
		t.Errorf("picture = %v, want %v", got, want)
	}
	if v.Init.Name != "Ana's desktop" {
		t.Errorf("name = %q, want the desktop's title", v.Init.Name)
	}
	eventually(t, "the session is open and its first frame written down", func() bool {
		st := w.status(t, "one")
		return st.State == estate.SessionOpen && len(st.Phases) == 1 && st.Phases[0].Name == estate.FirstFrame
	})
	if _, resp, err := w.dial(ticket, nil); err == nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("the second use: %v, want a refusal", err)
	}
	c.Close()
	eventually(t, "the session is ready again", func() bool { return w.status(t, "one").State == estate.SessionReady })
	c, _, err = w.dial(w.ticket(t, s), nil)
	if err != nil {
		t.Fatalf("a fresh ticket after the viewer went: %v", err)
	}
	c.Close()
	if strings.Contains(w.log.String(), ticket) {
		t.Error("the ticket is in the log")
	}
}

func TestEveryBadTicketGetsTheSameAnswer(t *testing.T) {
	w := newWorld(t)
	s := w.session(t, "one")
	used := w.ticket(t, s)
	if _, err := w.tickets.redeem(t.Context(), used); err != nil {
		t.Fatal(err)
	}
	other := w.session(t, "other")
	moved := w.ticket(t, other)
	if err := w.store.Delete(t.Context(), other.Ref(), 0); err != nil {
		t.Fatal(err)
	}
	w.session(t, "other") // same name, another session
	old := w.ticket(t, s)
	answers := map[string]string{}
	try := func(name, ticket string) {
		c, resp, err := w.dial(ticket, nil)
		if err == nil {
			c.Close()
			t.Errorf("%s: opened", name)
			return
		}
		if resp == nil {
			t.Fatalf("%s: %v", name, err)
		}
		b, _ := io.ReadAll(resp.Body)
		answers[name] = fmt.Sprint(resp.StatusCode, string(b))
	}
	try("used", used)
	try("guessed", strings.Repeat("A", 43))
	try("malformed", "x")
	try("other session", moved)
	w.now.Store(int64(31 * time.Second))
	try("expired", old)
	for name, got := range answers {
		if got != answers["used"] || !strings.HasPrefix(got, "403") {
			t.Errorf("%s: %s, want what a used one gets: %s", name, got, answers["used"])
		}
	}
	if n := w.calls.Load(); n != 0 {
		t.Errorf("machines dialled for bad tickets: %d", n)
	}
}

func TestTicketDoesNotOutliveWhatItIsFor(t *testing.T) {
	for name, change := range map[string]func(context.Context, *world) error{
		"the session ended": func(ctx context.Context, w *world) error {
			_, err := store.Modify(ctx, w.store, "main", "one", func(s *estate.Session) error { s.Spec.End = true; return nil })
			return err
		},
		"another machine": func(ctx context.Context, w *world) error {
			ref := estate.Ref{Kind: "Machine", Project: "main", Name: "ana-clerk"}
			if err := w.store.Delete(ctx, ref, 0); err != nil {
				return err
			}
			return w.store.Create(ctx, object(&estate.Machine{}, "Machine", "ana-clerk"))
		},
		"another presentation": func(ctx context.Context, w *world) error {
			_, err := store.Modify(ctx, w.store, "main", "one", func(s *estate.Session) error {
				s.Status.Way.Protocol = "other"
				return nil
			})
			return err
		},
		"the context is gone": func(ctx context.Context, w *world) error {
			return w.store.Delete(ctx, estate.Ref{Kind: "Context", Project: "main", Name: "office"}, 0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			ticket := w.ticket(t, w.session(t, "one"))
			if err := change(t.Context(), w); err != nil {
				t.Fatal(err)
			}
			c, resp, err := w.dial(ticket, nil)
			if err == nil {
				c.Close()
				t.Fatal("opened")
			}
			if resp == nil || resp.StatusCode != http.StatusForbidden {
				t.Errorf("answer = %v, want 403", err)
			}
		})
	}
}

func TestTunnelIsOpenedOnlyTheRightWay(t *testing.T) {
	w := newWorld(t)
	s := w.session(t, "one")
	get := func(query string, header http.Header) (int, string) {
		t.Helper()
		req, err := http.NewRequest(http.MethodGet, w.web.URL+api.TunnelPath+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = header
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	ticket := w.ticket(t, s)
	if code, body := get("?ticket="+ticket, http.Header{}); code != 422 || !strings.Contains(body, "Sec-WebSocket-Protocol") || strings.Contains(body, ticket) {
		t.Errorf("a ticket in the URL: %d %s", code, body)
	}
	if code, body := get("", http.Header{}); code != 401 || !strings.Contains(body, api.TunnelProtocol) {
		t.Errorf("no ticket: %d %s", code, body)
	}
	host := strings.TrimPrefix(w.web.URL, "http://")
	for _, origin := range []string{"http://evil.example", "https://" + host, "http://" + host + ".evil.example", "null", "http://localhost:1"} {
		if c, resp, err := w.dial(ticket, http.Header{"Origin": {origin}}); err == nil {
			c.Close()
			t.Errorf("a page at %s opened a tunnel", origin)
		} else if resp.StatusCode != http.StatusForbidden {
			t.Errorf("a page at %s: %v", origin, err)
		}
	}
	c, _, err := w.dial(ticket, nil)
	if err != nil {
		t.Fatalf("refusals for other reasons must not use the ticket up: %v", err)
	}
	c.Close()
}

func TestNativeViewerShowsTheSecret(t *testing.T) {
	w := newWorld(t)
	s := w.session(t, "one")
	for _, right := range []bool{true, false} {
		ticket, err := w.Issue(t.Context(), s, true)
		if err != nil {
			t.Fatal(err)
		}
		c, _, err := w.dial(ticket.Ticket, http.Header{})
		if err != nil {
			t.Fatal(err)
		}
		p := rfb.Proof{Password: ticket.Secret}
		if !right {
			p.Password = "wrong"
		}
		_, err = look(c, p)
		if right != (err == nil) {
			t.Errorf("right secret %v: %v", right, err)
		}
		if !right && !errors.Is(err, fault.Denied) {
			t.Errorf("wrong secret: %v, want %v", err, fault.Denied)
		}
		c.Close()
		eventually(t, "closed", func() bool { return w.Opened() == 0 })
		if strings.Contains(w.log.String(), ticket.Secret) {
			t.Error("the secret is in the log")
		}
	}
}

func TestNothingSecretIsStored(t *testing.T) {
	w := newWorld(t)
	ticket, err := w.Issue(t.Context(), w.session(t, "one"), true)
	if err != nil {
		t.Fatal(err)
	}
	page, err := w.KV.List(t.Context(), "/", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, e := range page.Entries {
		found = found || strings.HasPrefix(e.Key, ticketKeys)
		for _, secret := range []string{ticket.Ticket, ticket.Secret} {
			if strings.Contains(e.Key, secret) || bytes.Contains(e.Value, []byte(secret)) {
				t.Errorf("%s holds a secret", e.Key)
			}
		}
	}
	if !found {
		t.Error("the listing does not hold the ticket at all: the check checks nothing")
	}
}

func TestEndingASessionClosesItsConnection(t *testing.T) {
	for name, end := range map[string]func(context.Context, *world) error{
		"by its spec": func(ctx context.Context, w *world) error {
			_, err := store.Modify(ctx, w.store, "main", "one", func(s *estate.Session) error { s.Spec.End = true; return nil })
			return err
		},
		"by removing it": func(ctx context.Context, w *world) error {
			return w.store.Delete(ctx, estate.Ref{Kind: "Session", Project: "main", Name: "one"}, 0)
		},
		"by removing the desktop": func(ctx context.Context, w *world) error {
			return w.store.Delete(ctx, estate.Ref{Kind: "Desktop", Project: "main", Name: "ana-clerk"}, 0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c, _, err := w.dial(w.ticket(t, w.session(t, "one")), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			v, err := look(c, rfb.Proof{})
			if err != nil {
				t.Fatal(err)
			}
			if err := end(t.Context(), w); err != nil {
				t.Fatal(err)
			}
			c.SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, err := v.Next(); err == nil || errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("the viewer's read = %v, want the end", err)
			}
			eventually(t, "left", func() bool { return w.Opened() == 0 })
			if name == "by its spec" {
				eventually(t, "ended", func() bool {
					st := w.status(t, "one")
					return st.State == estate.SessionEnded && !st.Ended.IsZero() && st.Because != ""
				})
			}
		})
	}
}

func TestASlowViewerDelaysNobodyElse(t *testing.T) {
	w := newWorld(t)
	slow, _, err := w.dial(w.ticket(t, w.session(t, "slow")), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	v, err := look(slow, rfb.Proof{})
	if err != nil {
		t.Fatal(err)
	}
	go func() { // asks for picture after picture and reads none
		for v.Request(false) == nil {
		}
	}()
	fast, _, err := w.dial(w.ticket(t, w.session(t, "fast")), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer fast.Close()
	began := time.Now()
	f, err := look(fast, rfb.Proof{})
	for range 100 {
		if err == nil {
			err = f.Request(false)
		}
		if err == nil {
			err = f.NextFrame()
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("100 pictures took %v beside a viewer that does not read", took)
	}
}

// A thousand redeem one ticket at once, a hundred times.
func TestOneOfAThousandRedeemersWins(t *testing.T) {
	w := newWorld(t)
	s := w.session(t, "one")
	rounds := 100
	if testing.Short() {
		rounds = 10
	}
	w.tickets.kv = yielding{w.KV}
	for range rounds {
		ticket := w.ticket(t, s)
		if n := race(1000, func() error { _, err := w.tickets.redeem(context.Background(), ticket); return err }); n != 1 {
			t.Fatalf("winners = %d, want 1", n)
		}
	}
}

// The same race against a redemption that does not compare must have more than
// one winner, or the race proves nothing.
func TestTheRaceFindsARedemptionThatDoesNotCompare(t *testing.T) {
	w := newWorld(t)
	s := w.session(t, "one")
	kv := yielding{w.KV}
	for range 10 {
		key := ticketKey(w.ticket(t, s))
		n := race(1000, func() error {
			if _, err := kv.Get(context.Background(), key); err != nil {
				return err
			}
			_, err := kv.Commit(context.Background(), store.Txn{Then: []store.Write{{Key: key, Delete: true}}})
			return err
		})
		if n > 1 {
			return
		}
	}
	t.Error("the race never had a second winner: it proves nothing")
}

// race calls try from n goroutines at once and counts successes.
func race(n int, try func() error) int64 {
	var wins atomic.Int64
	var wg sync.WaitGroup
	start := make(chan struct{})
	for range n {
		wg.Go(func() {
			<-start
			if try() == nil {
				wins.Add(1)
			}
		})
	}
	close(start)
	wg.Wait()
	return wins.Load()
}

func TestIssueRefusesWhatIsNotReady(t *testing.T) {
	w := newWorld(t)
	s := w.session(t, "one")
	s.Status.State = estate.SessionWaiting
	if _, err := w.Issue(t.Context(), s, false); !errors.Is(err, fault.Conflict) {
		t.Errorf("Issue of a waiting session = %v, want %v", err, fault.Conflict)
	}
	s.Status.State, s.Status.Way.Name = estate.SessionReady, "absent"
	if _, err := w.Issue(t.Context(), s, false); !errors.Is(err, fault.Unsupported) {
		t.Errorf("Issue for an absent provider = %v, want %v", err, fault.Unsupported)
	}
}

func TestRefusalsAreProblems(t *testing.T) {
	w := newWorld(t)
	_, resp, err := w.dial("x", nil)
	if err == nil || resp == nil {
		t.Fatal("opened")
	}
	var p api.Problem
	if err := json.NewDecoder(resp.Body).Decode(&p); err != nil || p.Kind != fault.Denied.String() || p.Detail == "" {
		t.Errorf("problem = %+v, %v", p, err)
	}
}
