package remote_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/hypervisor/drivertest"
	"consort.dev/consort/hypervisor/fakehost"
	"consort.dev/consort/hypervisor/remote"
)

// TestMain is the driver's process when it is started as one: it serves until
// its input ends, as it does when the test has died.
func TestMain(m *testing.M) {
	if len(os.Args) != 3 || os.Args[1] != "serve" {
		os.Exit(m.Run())
	}
	l, err := net.Listen("unix", os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	fmt.Println("serving")
	host := fakehost.Lacking(fakehost.New(fakehost.Options{}), lacking()...)
	if err := remote.Serve(ctx, l, host); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func lacking() (cs []estate.Capability) {
	if c := os.Getenv("REMOTE_TEST_LACKS"); c != "" {
		cs = append(cs, estate.Capability(c))
	}
	return cs
}

// serve starts a driver's process and returns the path of its socket, and how
// to kill it.
func serve(t *testing.T) (path string, kill func()) {
	t.Helper()
	dir, err := os.MkdirTemp("", "remote")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path = filepath.Join(dir, "s")
	cmd := exec.Command("/proc/self/exe", "serve", path)
	cmd.Stderr = os.Stderr
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	kill = func() {
		cmd.Process.Kill()
		cmd.Wait()
		in.Close()
	}
	t.Cleanup(kill)
	if _, err := io.ReadFull(out, make([]byte, len("serving\n"))); err != nil {
		t.Fatalf("the driver's process says nothing: %v", err)
	}
	return path, kill
}

func dial(t *testing.T, path string) *remote.Client {
	t.Helper()
	c, err := remote.Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func bench(t *testing.T) drivertest.Bench {
	dir := t.TempDir()
	base := filepath.Join(dir, "base")
	if err := os.WriteFile(base, []byte("a base"), 0o444); err != nil {
		t.Fatal(err)
	}
	path, _ := serve(t)
	return drivertest.Bench{
		Host: dial(t, path).Host(), Base: driver.Content{Path: base, Format: estate.Raw, Size: 512}, Raw: []byte("a base"),
		Dir: dir, OS: true, Simulated: true, Says: fakehost.Greeting,
		Reopen: func() (driver.Host, error) { return dial(t, path).Host(), nil },
	}
}

// TestConformanceOverASocket has the driver in the same process, so that the
// bench can do to it what nobody can from outside.
func TestConformanceOverASocket(t *testing.T) {
	drivertest.Run(t, func(t *testing.T) drivertest.Bench {
		site := new(fakehost.Site)
		inner := fakehost.New(fakehost.Options{Site: site})
		b := bench(t)
		b.Host, b.Other = overSocket(t, inner), overSocket(t, fakehost.New(fakehost.Options{Site: site}))
		b.Stranger, b.Blind = inner.Strangers(b.Dir), inner.Blind
		b.NIC = func() (driver.NIC, error) { return driver.NIC{MAC: "02:00:00:00:00:01", Name: "lan"}, nil }
		b.Reopen = func() (driver.Host, error) { return b.Host, nil }
		return b
	})
}

func overSocket(t *testing.T, h driver.Host) driver.Host {
	dir, err := os.MkdirTemp("", "remote")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- remote.Serve(ctx, l, h) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return dial(t, l.Addr().String()).Host()
}

func TestConformanceAcrossProcesses(t *testing.T) { drivertest.Run(t, bench) }

func TestAbilitiesAreThoseOfTheFarDriver(t *testing.T) {
	t.Setenv("REMOTE_TEST_LACKS", string(estate.CanGuest))
	drivertest.Run(t, bench)
}

func TestADriverThatIsGoneIsUnavailable(t *testing.T) {
	path, kill := serve(t)
	c := dial(t, path)
	kill()
	c.Close() // no idle connection is left over which something could be said
	if _, err := c.Host().List(t.Context()); !errors.Is(err, fault.Unavailable) {
		t.Errorf("error = %v, want %v", err, fault.Unavailable)
	}
}

func TestADriverThatDiesDuringACallLeavesTheOutcomeUnknown(t *testing.T) {
	dir, err := os.MkdirTemp("", "remote")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served, hold := make(chan error, 1), make(chan struct{})
	defer close(hold)
	go func() { served <- remote.Serve(ctx, l, dies{fakehost.New(fakehost.Options{}), cancel, hold}) }()
	c := dial(t, l.Addr().String())
	if err := c.Host().Start(t.Context(), "x"); !errors.Is(err, fault.OutcomeUnknown) {
		t.Errorf("error = %v, want %v", err, fault.OutcomeUnknown)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// dies is a driver whose process ends while it starts a machine.
type dies struct {
	driver.Host
	end  context.CancelFunc
	hold chan struct{}
}

func (d dies) Start(_ context.Context, _ estate.MachineID) error {
	d.end()
	<-d.hold // an answer would find its way before the connection is cut
	return nil
}

// TestTheWireIsAsTheGuideSays plays the conversation in docs/drivers.md, as
// someone would who has nothing but that page.
func TestTheWireIsAsTheGuideSays(t *testing.T) {
	page, err := os.ReadFile("../../docs/drivers.md")
	if err != nil {
		t.Fatal(err)
	}
	path, _ := serve(t)
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}}}
	talk := regexp.MustCompile(`(?m)^POST (/\S+) (.+)\n(\d+) (.+)$`).FindAllStringSubmatch(string(page), -1)
	if len(talk) < 3 {
		t.Fatalf("the page has %d exchanges, want at least 3", len(talk))
	}
	for _, said := range talk {
		res, err := client.Post("http://driver"+said[1], "application/json", strings.NewReader(said[2]))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || fmt.Sprint(res.StatusCode) != said[3] || strings.TrimSpace(string(got)) != said[4] {
			t.Errorf("POST %s %s\ngot  %d %s\nwant %s %s", said[1], said[2], res.StatusCode, got, said[3], said[4])
		}
	}
}

// TestAWatchThatBreaksIsAnError has the driver fail while it watches, and then
// its process die.
func TestAWatchThatBreaksIsAnError(t *testing.T) {
	w, ok := driver.As[driver.Watcher](overSocket(t, blind{fakehost.New(fakehost.Options{})}))
	if !ok {
		t.Fatal("the host does not watch")
	}
	if err := w.Watch(t.Context(), func(estate.MachineID) {}); !errors.Is(err, fault.Busy) || err.Error() != "too many watch" {
		t.Errorf("Watch = %v, want the driver's own error", err)
	}
	path, kill := serve(t)
	h := dial(t, path).Host()
	w, _ = driver.As[driver.Watcher](h)
	told, ended := make(chan estate.MachineID, 16), make(chan error, 1)
	go func() { ended <- w.Watch(t.Context(), func(id estate.MachineID) { told <- id }) }()
	for heard := false; !heard; { // until watching has begun
		if err := errors.Join(h.Define(t.Context(), driver.Definition{ID: "m"}), h.Delete(t.Context(), "m")); err != nil {
			t.Fatal(err)
		}
		select {
		case <-told:
			heard = true
		case err := <-ended:
			t.Fatalf("watching ended: %v", err)
		default:
		}
	}
	kill()
	for {
		select {
		case <-told:
			continue
		case err := <-ended:
			if !errors.Is(err, fault.Unavailable) {
				t.Errorf("Watch = %v, want %v", err, fault.Unavailable)
			}
		}
		return
	}
}

// blind is a driver whose watching fails.
type blind struct{ *fakehost.Host }

func (blind) Watch(context.Context, func(estate.MachineID)) error {
	return fault.Busy.Errorf("too many watch")
}
