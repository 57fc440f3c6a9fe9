package rpc

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
)

// tail reads the lines of a watch.
type tail struct {
	t    *testing.T
	scan *bufio.Scanner
	stop context.CancelFunc
}

func (p *plane) tail(token, query string) *tail {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 20*time.Second)
	req, err := http.NewRequestWithContext(ctx, "GET", p.http.URL+query, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := p.http.Client().Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { cancel(); resp.Body.Close() })
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != api.NDJSON {
		p.t.Fatalf("watch: got %s, %s", resp.Status, resp.Header.Get("Content-Type"))
	}
	return &tail{p.t, bufio.NewScanner(resp.Body), cancel}
}

// next returns the next line as "type kind/name", passing over bookmarks
// unless asked for them.
func (l *tail) next(bookmarks bool) (string, int64) {
	l.t.Helper()
	for l.scan.Scan() {
		var line api.WatchLine
		var head estate.Head
		if err := json.Unmarshal(l.scan.Bytes(), &line); err != nil {
			l.t.Fatal(err)
		}
		if line.Type == api.Bookmark {
			if bookmarks {
				return "bookmark", line.Version
			}
			continue
		}
		if err := json.Unmarshal(line.Object, &head); err != nil {
			l.t.Fatal(err)
		}
		return fmt.Sprintf("%s %s", line.Type, head.Ref()), line.Version
	}
	l.t.Fatalf("the watch ended: %v", l.scan.Err())
	return "", 0
}

func (l *tail) want(want ...string) (last int64) {
	l.t.Helper()
	for _, w := range want {
		got, v := l.next(w == "bookmark")
		if got != w {
			l.t.Fatalf("got line %q, want %q", got, w)
		}
		last = v
	}
	return last
}

func TestAWatchBeginsWithEverythingAndGoesOn(t *testing.T) {
	p := start(t)
	p.office()
	w := p.tail("root", "/v1/watch?kinds=Desktop,networks&project=p")
	w.want("put desktop/p/desk", "put network/p/lan", "bookmark")
	c := p.as("root")
	if err := c.Put(t.Context(), network("wan"), api.Write{}); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(t.Context(), network("wan").Ref(), api.Write{}); err != nil {
		t.Fatal(err)
	}
	w.want("put network/p/wan", "deleted network/p/wan", "bookmark")
}

func TestAWatchResumesAfterAVersion(t *testing.T) {
	p := start(t)
	p.office()
	c := p.as("root")
	w := p.tail("root", "/v1/projects/p/networks?watch=true")
	at := w.want("put network/p/lan", "bookmark")
	w.stop()
	for _, n := range []string{"one", "two"} {
		if err := c.Put(t.Context(), network(n), api.Write{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Delete(t.Context(), network("one").Ref(), api.Write{}); err != nil {
		t.Fatal(err)
	}
	w = p.tail("root", fmt.Sprintf("/v1/projects/p/networks?watch=true&version=%d", at))
	w.want("put network/p/one", "put network/p/two", "deleted network/p/one")
}

func TestAWatchTellsOnlyWhatTheCallerMaySee(t *testing.T) {
	p := start(t)
	p.office()
	ana := p.tail("ana", "/v1/watch?kinds=Desktop")
	ben := p.tail("ben", "/v1/watch?kinds=Desktop")
	ana.want("put desktop/p/desk", "bookmark")
	at := ben.want("bookmark")
	c := p.as("root")
	named := desktop("desk", "ana")
	named.Spec.Title = "not for ben"
	if err := c.Put(t.Context(), named, api.Write{}); err != nil {
		t.Fatal(err)
	}
	ana.want("put desktop/p/desk")
	if err := c.Put(t.Context(), desktop("desk", "ben"), api.Write{}); err != nil {
		t.Fatal(err)
	}
	ana.want("deleted desktop/p/desk") // no longer hers to see
	ben.want("put desktop/p/desk")
	if err := c.Delete(t.Context(), desktop("desk", "").Ref(), api.Write{}); err != nil {
		t.Fatal(err)
	}
	ben.want("deleted desktop/p/desk")
	later := p.tail("ben", fmt.Sprintf("/v1/watch?kinds=Desktop&version=%d", at))
	later.want("put desktop/p/desk", "deleted desktop/p/desk") // what happened, from when it was his on
}

// TestAnAgentListsAgain has the plane refuse to go on where an agent's watch
// ended: what it saw may have gone elsewhere since, without being deleted.
func TestAnAgentListsAgain(t *testing.T) {
	p := start(t)
	w := p.tail("agent-a", "/v1/watch?kinds=Network")
	at := w.want("bookmark")
	w.stop()
	p.curl("agent-a", "GET", fmt.Sprintf("/v1/watch?kinds=Network&version=%d", at+1), "").want(t, "resumed", 410, "leave the version out")
	p.tail("agent-a", "/v1/watch?kinds=Network").want("bookmark")
}

func TestAWatchOfWhatThereIsNotIsRefused(t *testing.T) {
	p := start(t)
	p.curl("root", "GET", "/v1/watch?kinds=Desktp", "").want(t, "kind", 422, "did you mean Desktop?")
	p.curl("root", "GET", "/v1/watch", "").want(t, "no kinds", 422, "say what to watch")
	p.curl("root", "GET", "/v1/watch?kinds=Desktop&version=x", "").want(t, "version", 422, "is not a version")
	p.curl("", "GET", "/v1/watch?kinds=Desktop", "").want(t, "nobody", 401)
}

// take returns the next event that is not Lost.
func take[T any](t *testing.T, in <-chan api.EventOf[T]) api.EventOf[T] {
	t.Helper()
	for {
		select {
		case e, ok := <-in:
			if !ok {
				t.Fatal("the watch is closed")
			}
			if e.Type != api.Lost {
				return e
			}
		case <-time.After(15 * time.Second):
			t.Fatal("no event came")
		}
	}
}

func TestTheClientsWatchSurvivesADroppedConnection(t *testing.T) {
	p := start(t)
	p.office()
	c, ctx := p.as("root"), t.Context()
	events := api.Watch[estate.Network](ctx, c, "p")
	if e := take(t, events); e.Type != api.Is || e.Object.Metadata.Name != "lan" {
		t.Fatalf("got %+v, want the network", e)
	}
	if e := take(t, events); e.Type != api.Synced {
		t.Fatalf("got %+v, want synced", e)
	}
	p.http.CloseClientConnections()
	if err := c.Put(ctx, network("wan"), api.Write{}); err != nil {
		t.Fatal(err)
	}
	if e := take(t, events); e.Type != api.Is || e.Object.Metadata.Name != "wan" {
		t.Errorf("got %+v, want what happened meanwhile and nothing twice", e)
	}
	p.http.CloseClientConnections()
	if err := c.Delete(ctx, network("wan").Ref(), api.Write{}); err != nil {
		t.Fatal(err)
	}
	if e := take(t, events); e.Type != api.Gone || e.Object.Metadata.Name != "wan" || e.Object.Spec.Subnet == "" {
		t.Errorf("got %+v, want the network gone, as it was last seen", e)
	}
}

func TestTheClientsWatchEndsWhenItIsRefused(t *testing.T) {
	p := start(t)
	events := p.as("root").WatchKinds(t.Context(), "", "Desktp")
	e := take(t, events)
	if e.Type != api.Ended || e.Err == nil {
		t.Errorf("got %+v, want it ended with the reason", e)
	}
	if _, open := <-events; open {
		t.Error("the channel is still open")
	}
}
