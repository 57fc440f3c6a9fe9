package hyperv

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor"
	"consort.dev/consort/hypervisor/driver"
)

// soon bounds every wait.
const soon = 20 * time.Second

const desk = estate.MachineID("0a000000-0000-4000-8000-000000000001")

func deskOn(c driver.Content) driver.Definition {
	return driver.Definition{ID: desk, Name: "desk", CPUs: 1, Memory: 32 * estate.MiB, Disks: []driver.Disk{{Name: "root", Base: &c}}}
}

// defined returns a host with one machine, and what it talks to.
func defined(t *testing.T) (*Host, *fakeService) {
	t.Helper()
	f := newFakeService(t, newModel(t))
	h := open(t, config(t, f))
	t.Cleanup(func() { h.Close() })
	c, _ := base(t)
	if err := h.Define(t.Context(), deskOn(c)); err != nil {
		t.Fatal(err)
	}
	return h, f
}

// once has something happen to the next message of an action only.
func once(action string, happen func(w http.ResponseWriter, serve func())) func(string, http.ResponseWriter, func()) bool {
	done := make(chan struct{}, 1)
	done <- struct{}{}
	return func(a string, w http.ResponseWriter, serve func()) bool {
		if a != action {
			return false
		}
		select {
		case <-done:
			happen(w, serve)
			return true
		default:
			return false
		}
	}
}

func TestAConnectionThatDropsInACommandIsLookedUp(t *testing.T) {
	h, f := defined(t)
	host, err := hypervisor.Open(t.Context(), "hv", h)
	if err != nil {
		t.Fatal(err)
	}
	// The look before the start has one Receive; the start's own is cut.
	var sends atomic.Int32
	f.meddle = func(a string, w http.ResponseWriter, serve func()) bool {
		if a == "Send" {
			sends.Add(1)
		}
		if a == "Receive" && sends.CompareAndSwap(3, 4) { // hypervisor.Host's look, the driver's look, start
			f.finish()
			drop(w)
			return true
		}
		return false
	}
	if err := host.Start(t.Context(), desk); err != nil {
		t.Fatalf("Start = %v, want success: the machine runs", err)
	}
	m, err := host.Get(t.Context(), desk)
	if err != nil || m.Power != estate.On || m.Starts != 1 {
		t.Errorf("machine = %+v, %v; want one that runs after one start", m, err)
	}
	if sends.Load() < 4 {
		t.Error("no connection was dropped")
	}
}

func TestWhatADropMeansDependsOnWhetherTheScriptCouldRun(t *testing.T) {
	for action, want := range map[string]fault.Kind{"Command": fault.Unavailable, "Send": fault.OutcomeUnknown, "Receive": fault.OutcomeUnknown} {
		h, f := defined(t)
		f.meddle = once(action, func(w http.ResponseWriter, _ func()) { drop(w) })
		if err := h.remote.act(t.Context(), "save", saveRequest{ID: desk}); !errors.Is(err, want) {
			t.Errorf("a connection dropped at %s is %v (%v), want %v", action, err, fault.KindOf(err), want)
		}
		if err := h.remote.act(t.Context(), "save", saveRequest{ID: desk}); err != nil {
			t.Errorf("after a connection dropped at %s: %v", action, err)
		}
	}
}

func TestAQuestionWhoseAnswerIsLostChangedNothing(t *testing.T) {
	h, f := defined(t)
	f.meddle = once("Receive", func(w http.ResponseWriter, _ func()) { drop(w) })
	if _, err := h.List(t.Context()); !errors.Is(err, fault.Unavailable) || errors.Is(err, fault.OutcomeUnknown) && fault.KindOf(err) != fault.Unavailable {
		t.Errorf("List = %v (%v), want %v", err, fault.KindOf(err), fault.Unavailable)
	}
}

func TestAShellThatMayTakeNoMoreIsReplaced(t *testing.T) {
	h, f := defined(t)
	f.commandLimit = 3
	for range 10 {
		if _, err := h.List(t.Context()); err != nil {
			t.Fatalf("List = %v, want a new shell after three commands", err)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.shells) > lanes {
		t.Errorf("%d shells are open, want at most %d", len(f.shells), lanes)
	}
}

func TestAShellThatWentAwayIsReplaced(t *testing.T) {
	h, f := defined(t)
	f.mu.Lock()
	for id := range f.shells {
		f.dropShell(id)
	}
	f.mu.Unlock()
	if _, err := h.List(t.Context()); err != nil {
		t.Errorf("List = %v, want a new shell", err)
	}
}

func TestNoMoreShellsIsBusy(t *testing.T) {
	f := newFakeService(t, newModel(t))
	cfg := config(t, f)
	f.meddle = func(a string, w http.ResponseWriter, serve func()) bool {
		if a == "Create" {
			w.WriteHeader(http.StatusInternalServerError)
			w.Write([]byte(`<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"><s:Body><s:Fault><s:Reason><s:Text>too many</s:Text></s:Reason><s:Detail><f:WSManFault xmlns:f="http://schemas.microsoft.com/wbem/wsman/1/wsmanfault" Code="2150859173"/></s:Detail></s:Fault></s:Body></s:Envelope>`))
		}
		return a == "Create"
	}
	if _, err := Open(t.Context(), cfg); !errors.Is(err, fault.Busy) {
		t.Errorf("Open = %v, want %v", err, fault.Busy)
	}
}

func TestASlowAnswerIsWaitedFor(t *testing.T) {
	h, f := defined(t)
	f.patience = time.Millisecond
	var asked atomic.Int32
	thrice := make(chan struct{})
	f.meddle = func(a string, _ http.ResponseWriter, _ func()) bool {
		if a == "Receive" && asked.Add(1) == 3 {
			close(thrice)
		}
		return false
	}
	f.model.pauseBy(func(context.Context) {
		select {
		case <-thrice:
		case <-time.After(soon):
			t.Error("the script's output is not asked for again")
		}
	})
	if err := h.Start(t.Context(), desk); err != nil {
		t.Errorf("Start = %v, want patience with a Receive that has nothing yet", err)
	}
}

func TestOutputComesInPieces(t *testing.T) {
	h, f := defined(t)
	f.piece = 7
	all, err := h.List(t.Context())
	if err != nil || len(all) != 1 || all[0].Def.Name != "desk" {
		t.Errorf("List = %+v, %v; want the machine", all, err)
	}
}

func TestAWrongPasswordIsUnauthenticatedAndNotTold(t *testing.T) {
	f := newFakeService(t, newModel(t))
	cfg := config(t, f)
	if err := os.WriteFile(cfg.Credentials, []byte(fakeUser+"\nnot-the-password\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), cfg)
	if !errors.Is(err, fault.Unauthenticated) || strings.Contains(err.Error(), "not-the-password") {
		t.Errorf("Open = %v, want %v without the password", err, fault.Unauthenticated)
	}
}

func TestACertificateOfNobodyWeTrustIsRefused(t *testing.T) {
	f := newFakeService(t, newModel(t))
	cfg := config(t, f)
	cfg.Endpoint, _, _ = strings.Cut(cfg.Endpoint, "?")
	_, err := Open(t.Context(), cfg)
	if err == nil || !strings.Contains(err.Error(), "certificate is not trusted") {
		t.Errorf("Open = %v, want a refusal of the certificate", err)
	}
	if f.seen["Create"] != 0 {
		t.Error("something was sent before the certificate was checked")
	}
}

func TestEndpointsAndCredentialsThatGiveSecretsAwayAreRefused(t *testing.T) {
	for _, endpoint := range []string{"http://hv1.example.org:5985/wsman", "https://user:word@hv1/wsman", "hv1", "https://hv1/?insecure=1", "ftp://127.0.0.1/"} {
		url, roots, err := readEndpoint(endpoint)
		if err == nil {
			_, err = newWinRM(url, "u", "p", roots)
		}
		if !errors.Is(err, fault.Invalid) || strings.Contains(err.Error(), "word@") {
			t.Errorf("endpoint %s: %v, want %v without a password", endpoint, err, fault.Invalid)
		}
	}
	if _, err := newWinRM("http://127.0.0.1:5985/wsman", "u", "p", nil); err != nil {
		t.Errorf("plain HTTP to this machine = %v, want it allowed", err)
	}
	path := t.TempDir() + "/credentials"
	if err := os.WriteFile(path, []byte("u\np\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := readCredentials(path); !errors.Is(err, fault.Invalid) {
		t.Errorf("credentials that others may read = %v, want %v", err, fault.Invalid)
	}
}

// TestScriptsThatAreKilledAnywhereAreFinishedByTheNextCall kills the script
// between any two of its steps, as the end of a shell does.
func TestScriptsThatAreKilledAnywhereAreFinishedByTheNextCall(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	c, raw := base(t)
	for _, act := range []struct {
		name  string
		ready func(context.Context, *Host) error
		do    func(context.Context, *Host) error
		check func(*testing.T, *Host)
	}{
		{"define", nothingFirst, func(ctx context.Context, h *Host) error { return h.Define(ctx, deskOn(c)) }, is(estate.Off, 0)},
		{"start", defineFirst(c), func(ctx context.Context, h *Host) error { return h.Start(ctx, desk) }, is(estate.On, 1)},
		{"shelve", defineFirst(c), func(ctx context.Context, h *Host) error { return h.Shelve(ctx, desk) }, func(t *testing.T, h *Host) {
			if err := h.Define(t.Context(), deskOn(c)); err != nil {
				t.Error(err)
			}
			is(estate.Off, 0)(t, h)
			holds(raw)(t, h)
		}},
		{"delete", defineFirst(c), func(ctx context.Context, h *Host) error { return h.Delete(ctx, desk) }, func(t *testing.T, h *Host) {
			if all, err := h.List(t.Context()); err != nil || len(all) != 0 {
				t.Errorf("machines = %v, %v; want none", all, err)
			}
		}},
		{"import", defineFirst(c), func(ctx context.Context, h *Host) error {
			return h.Import(ctx, desk, "root", bytes.NewReader(bytes.Repeat([]byte("n"), int(c.Size))))
		}, holds(bytes.Repeat([]byte("n"), int(c.Size)))},
	} {
		t.Run(act.name, func(t *testing.T) {
			m := newModel(t)
			h := open(t, config(t, newFakeService(t, m)))
			defer h.Close()
			for at, whole := int32(1), false; !whole; at++ {
				if err := act.ready(t.Context(), h); err != nil {
					t.Fatal(err)
				}
				whole = !killedAt(t, m, h, at, act.do)
				if err := act.do(t.Context(), h); err != nil {
					t.Fatalf("killed at step %d, then again: %v", at, err)
				}
				act.check(t, h)
				if err := h.Delete(t.Context(), desk); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// killedAt does the act, whose scripts are killed at that step of theirs. It
// reports whether they have as many.
func killedAt(t *testing.T, m *model, h *Host, at int32, act func(context.Context, *Host) error) bool {
	ctx, kill := context.WithCancel(t.Context())
	defer kill()
	var steps atomic.Int32
	m.pauseBy(func(script context.Context) {
		if steps.Add(1) != at {
			return
		}
		kill()
		select {
		case <-script.Done():
		case <-time.After(soon):
			t.Errorf("step %d: nobody killed the script of a call that was left", at)
		}
	})
	act(ctx, h)
	h.remote.winrm.tidying.Wait()
	m.pauseBy(nil)
	return ctx.Err() != nil
}

func nothingFirst(context.Context, *Host) error { return nil }

func defineFirst(c driver.Content) func(context.Context, *Host) error {
	return func(ctx context.Context, h *Host) error { return h.Define(ctx, deskOn(c)) }
}

func is(power estate.Power, starts int64) func(*testing.T, *Host) {
	return func(t *testing.T, h *Host) {
		t.Helper()
		all, err := h.List(t.Context())
		if err != nil || len(all) != 1 || all[0].Power != power || all[0].Starts != starts {
			t.Errorf("machines = %+v, %v; want one, %s after %d starts", all, err, power, starts)
		}
	}
}

func holds(want []byte) func(*testing.T, *Host) {
	return func(t *testing.T, h *Host) {
		t.Helper()
		var got bytes.Buffer
		if err := h.Export(t.Context(), desk, "root", &got); err != nil || !bytes.Equal(got.Bytes(), want) {
			t.Errorf("the disk holds %d bytes, %v; want the %d given", got.Len(), err, len(want))
		}
	}
}

func TestAHomeComesBackBeforeItsMachineGoes(t *testing.T) {
	h, f := defined(t)
	if err := h.Delete(t.Context(), desk); err != nil {
		t.Fatal(err)
	}
	home := t.TempDir() + "/home.img"
	if err := os.WriteFile(home, bytes.Repeat([]byte("h"), 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	c, _ := base(t)
	def := deskOn(c)
	def.Disks = append(def.Disks, driver.Disk{Name: "home", File: &driver.Content{Path: home, Format: estate.Raw, Size: 1 << 20}})
	if err := errors.Join(h.Define(t.Context(), def), h.Start(t.Context(), desk)); err != nil {
		t.Fatal(err)
	}
	f.model.mu.Lock()
	written := f.model.content(f.model.find(desk).drives[1])
	f.model.mu.Unlock()
	if err := os.WriteFile(written, bytes.Repeat([]byte("g"), 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := h.Delete(t.Context(), desk); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(home)
	if err != nil || !bytes.Equal(got, bytes.Repeat([]byte("g"), 1<<20)) {
		t.Errorf("the home has %d bytes, %v; want what the guest wrote", len(got), err)
	}
}

func TestAnUploadThatBrokeOffGoesOn(t *testing.T) {
	h, f := defined(t)
	path := t.TempDir() + "/big"
	data := make([]byte, 3*blockSize)
	for i := range data {
		data[i] = byte(i >> 12)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, kill := context.WithCancel(t.Context())
	var commands atomic.Int32
	f.meddle = func(a string, _ http.ResponseWriter, _ func()) bool {
		if a == "Command" {
			if commands.Add(1) == 4 { // begin, two blocks, and then none
				kill()
			}
		}
		return false
	}
	if err := h.upload(ctx, path, `bases\big.vhdx`, true); !errors.Is(err, context.Canceled) {
		t.Fatalf("upload = %v, want it cut", err)
	}
	h.remote.winrm.tidying.Wait()
	commands.Store(5)
	if err := h.upload(t.Context(), path, `bases\big.vhdx`, true); err != nil {
		t.Fatal(err)
	}
	if again := commands.Load() - 5; again > 4 { // begin, the last one or two blocks, end
		t.Errorf("the second upload took %d commands, want it to go on after the blocks that had arrived", again)
	}
	if got := f.model.read(stored(`bases\big.vhdx`)); got != string(data) {
		t.Errorf("%d bytes arrived, unequal to the %d sent", len(got), len(data))
	}
}
