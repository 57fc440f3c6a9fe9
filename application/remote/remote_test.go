package remote_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"consort.dev/consort/application/driver"
	"consort.dev/consort/application/drivertest"
	"consort.dev/consort/application/fakeapps"
	"consort.dev/consort/application/remote"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// served is the variable that makes this program the other process.
const served = "CONSORT_TEST_SERVE"

func TestMain(m *testing.M) {
	if path := os.Getenv(served); path != "" {
		l, err := net.Listen("unix", path)
		if err == nil {
			err = remote.Serve(context.Background(), l, telling{fakeapps.New()})
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func TestConformanceInAnotherProcess(t *testing.T) {
	drivertest.Run(t, func(t *testing.T) drivertest.Fixture {
		path, _ := child(t)
		told := &told{all: map[estate.MachineID][]drivertest.Process{}}
		return drivertest.Fixture{
			Provider:  dial(t, path),
			Machine:   drivertest.NewMachines(told.hear).Get,
			Processes: told.processes,
			Another:   func() driver.Provider { return dial(t, path) },
			Recipe:    driver.Recipe{Application: "clock", Packages: []string{"clock"}},
			Broken:    driver.Recipe{Application: "clock", Packages: []string{"absent"}},
		}
	})
}

func TestAbilitiesCross(t *testing.T) {
	for _, c := range []struct {
		name  string
		inner driver.Provider
		want  bool
	}{
		{"a builder", fakeapps.New(), true},
		{"no builder", struct{ driver.Provider }{fakeapps.New()}, false},
	} {
		path := serve(t, c.inner)
		if _, got := driver.As[driver.Builder](dial(t, path)); got != c.want {
			t.Errorf("%s: builds = %v, want %v", c.name, got, c.want)
		}
	}
}

func TestADeadProcessIsUnavailable(t *testing.T) {
	path, kill := child(t)
	p := dial(t, path)
	kill()
	_, err := p.Attached(t.Context(), drivertest.NewMachine("m1"))
	if !errors.Is(err, fault.Unavailable) {
		t.Errorf("Attached = %v, want unavailable", err)
	}
}

func TestDeathDuringACallLeavesTheOutcomeUnknown(t *testing.T) {
	path, kill := child(t)
	p := dial(t, path)
	m := drivertest.NewMachine("m1")
	m.Answer = func([]string, []byte) driver.Output {
		kill()
		return driver.Output{}
	}
	err := p.Attach(t.Context(), m, driver.Layer{Digest: "sha256:00112233445566778899"})
	if !errors.Is(err, fault.OutcomeUnknown) {
		t.Errorf("Attach = %v, want its outcome unknown", err)
	}
}

func TestCallerWhoGivesUpEndsTheCallThere(t *testing.T) {
	inner := fakeapps.New()
	entered, ended := make(chan struct{}), make(chan error, 1)
	inner.Wait = func(ctx context.Context, verb string, _ estate.MachineID) error {
		close(entered)
		<-ctx.Done()
		ended <- ctx.Err()
		return ctx.Err()
	}
	p := dial(t, serve(t, inner))
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-entered
		cancel()
	}()
	if err := p.Attach(ctx, drivertest.NewMachine("m1"), driver.Layer{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Attach = %v, want context.Canceled", err)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the call there ended with %v", err)
	}
}

// child starts the other process and returns its socket.
func child(t *testing.T) (path string, kill func()) {
	t.Helper()
	path = socket(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), served+"="+path)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	t.Cleanup(kill)
	return path, kill
}

// serve serves p from this process.
func serve(t *testing.T, p driver.Provider) string {
	t.Helper()
	path := socket(t)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- remote.Serve(ctx, l, p) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return path
}

func socket(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "apps") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

// dial waits until the other process is there.
func dial(t *testing.T, path string) driver.Provider {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		p, err := remote.Dial(t.Context(), path)
		if err == nil {
			return p
		}
		if time.Now().After(deadline) || t.Context().Err() != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// telling is the provider in memory that tells the machine what runs in it,
// because this side cannot look into the other process.
type telling struct{ *fakeapps.Provider }

func (p telling) Start(ctx context.Context, m driver.Machine, l driver.Layer, app driver.Launch) error {
	return errors.Join(p.Provider.Start(ctx, m, l, app), p.tell(ctx, m))
}

func (p telling) Detach(ctx context.Context, m driver.Machine, d estate.Digest) error {
	return errors.Join(p.Provider.Detach(ctx, m, d), p.tell(ctx, m))
}

func (p telling) tell(ctx context.Context, m driver.Machine) error {
	data, err := json.Marshal(p.Guests.Processes(m.ID()))
	if err == nil {
		_, err = m.Run(ctx, []string{"tell"}, data)
	}
	return err
}

// told is what the other process said runs in the guests.
type told struct {
	mu  sync.Mutex
	all map[estate.MachineID][]drivertest.Process
}

func (w *told) hear(id estate.MachineID, args []string, stdin []byte) driver.Output {
	if args[0] != "tell" {
		return driver.Output{}
	}
	var ps []drivertest.Process
	if err := json.Unmarshal(stdin, &ps); err != nil {
		return driver.Output{Exit: 1}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all[id] = ps
	return driver.Output{}
}

func (w *told) processes(id estate.MachineID) []drivertest.Process {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.all[id]
}
