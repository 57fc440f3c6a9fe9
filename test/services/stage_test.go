package services

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/test/fleet"
	"consort.dev/consort/test/guest"
)

func TestMain(m *testing.M) { os.Exit(fleet.Main(m)) }

// soon bounds what takes seconds, and minutes on a busy machine without hardware
// virtualisation.
const soon = 4 * time.Minute

// stage is a plane with one service on it.
type stage struct {
	*testing.T
	fleet *fleet.Fleet
	name  string
	url   string
	began time.Time
}

// newStage starts a plane with the manifests, in which the front of the one
// service listens at port 8088, and waits until all replicas answer that are
// wanted at first.
func newStage(t *testing.T, service string, manifests ...string) *stage {
	t.Helper()
	guest.Needs(t)
	s := &stage{T: t, name: service, began: time.Now()}
	port := freePort(t)
	s.url = "http://127.0.0.1:" + port + "/"
	dir := t.TempDir()
	for _, m := range manifests {
		text, err := os.ReadFile(m)
		if err != nil {
			t.Fatal(err)
		}
		moved := strings.ReplaceAll(string(text), "front: {port: 8088}", "front: {port: "+port+"}")
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(m)), []byte(moved), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.fleet = fleet.New(t, dir)
	t.Cleanup(s.retire)
	s.until("all replicas answer", func(v *estate.Service) bool { return v.Status.Ready >= v.Spec.Scale.Least })
	return s
}

// service reads the service.
func (s *stage) service() *estate.Service {
	s.Helper()
	v, err := api.Get[estate.Service](s.Context(), s.fleet.Client, "default", s.name)
	if err != nil {
		s.Fatal(err)
	}
	return v
}

// until waits until the service is so.
func (s *stage) until(what string, so func(*estate.Service) bool) *estate.Service {
	s.Helper()
	for end := time.Now().Add(soon); ; pause(s.Context()) {
		v := s.service()
		if so(v) {
			s.tell("%s", what)
			return v
		}
		if time.Now().After(end) {
			s.Fatalf("not so after %v: %s; %d replicas ready of %d wanted, waiting: %q, decisions %v", soon, what, v.Status.Ready, v.Status.Wanted, v.Status.Waiting, s.decisions(s.Context()))
		}
	}
}

// decisions are those about the service, the oldest first.
func (s *stage) decisions(ctx context.Context) []*estate.Decision {
	s.Helper()
	all, _, err := api.List[estate.Decision](ctx, s.fleet.Client, api.Filter{Project: "default"})
	if err != nil {
		s.Error(err)
	}
	slices.SortFunc(all, func(a, b *estate.Decision) int { return a.Spec.At.Compare(b.Spec.At) })
	return all
}

// decided waits until an act has been decided on since the moment.
func (s *stage) decided(act string, since time.Time) (found *estate.Decision) {
	s.Helper()
	s.until(act+" is decided", func(*estate.Service) bool {
		for _, d := range s.decisions(s.Context()) {
			if d.Spec.Act == act && !d.Spec.At.Before(since) {
				found = d
			}
		}
		return found != nil
	})
	s.tell("%s", found.Spec.Say)
	return found
}

// tell logs with the time since the beginning.
func (s *stage) tell(format string, args ...any) {
	s.Helper()
	s.Logf("%4.0f s: "+format, append([]any{time.Since(s.began).Seconds()}, args...)...)
}

// retire ends the service and waits until its machines have gone: the plane
// would make others in place of those that the fleet clears.
func (s *stage) retire() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.Context()), 2*time.Minute)
	defer cancel()
	ref := estate.Ref{Kind: "Service", Project: "default", Name: s.name}
	if s.Failed() {
		for _, d := range s.decisions(ctx) {
			s.Logf("%s %s: %s %v %+v", d.Spec.At.Format(time.TimeOnly), d.Status.State, d.Spec.Say, d.Spec.Evidence, d.Status.Outcome)
		}
	}
	for ctx.Err() == nil {
		if err := s.fleet.Client.Delete(ctx, ref, api.Write{}); errors.Is(err, fault.NotFound) {
			return
		}
		pause(ctx)
	}
	s.Error("the service is left")
}

// pause lets a little time pass between two looks.
func pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(200 * time.Millisecond):
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}
