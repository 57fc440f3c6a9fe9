package vsphere

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/task"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

const someID = estate.MachineID("0c9e3c54-1111-4222-8333-444455556666")

func definition(b driver.Content) driver.Definition {
	return driver.Definition{
		ID: someID, Name: "desk/one 100%", CPUs: 1, Memory: 32 * estate.MiB,
		Disks: []driver.Disk{{Name: "root", Base: &b, Size: estate.MiB}, {Name: "data", Size: estate.MiB}},
	}
}

func TestFaultsHaveKinds(t *testing.T) {
	text := "the vendor's words"
	for _, c := range []struct {
		f    types.BaseMethodFault
		want fault.Kind
	}{
		{new(types.InvalidLogin), fault.Unauthenticated},
		{new(types.NoPermission), fault.Denied},
		{new(types.ManagedObjectNotFound), fault.NotFound},
		{new(types.DuplicateName), fault.Exists},
		{new(types.TaskInProgress), fault.Busy},
		{new(types.FileLocked), fault.Busy},
		{new(types.NoDiskSpace), fault.NoCapacity},
		{new(types.InsufficientMemoryResourcesFault), fault.NoCapacity},
		{new(types.InvalidPowerState), fault.Conflict},
		{new(types.NotSupported), fault.Unsupported},
		{new(types.InvalidDeviceSpec), fault.Invalid},
		{new(types.HostNotConnected), fault.Unavailable},
		{new(types.FileNotFound), fault.Stuck},
		{new(types.SystemErrorFault), fault.OutcomeUnknown},
		{new(types.VFlashModuleNotSupported), fault.Internal},
	} {
		failed := task.Error{LocalizedMethodFault: &types.LocalizedMethodFault{Fault: c.f, LocalizedMessage: text}}
		err := did(failed, "power on")
		name := strings.TrimPrefix(fmt.Sprintf("%T", c.f), "*types.")
		if !errors.Is(err, c.want) || err.Error() != "power on: "+text+" ("+name+")" {
			t.Errorf("%s is %v %q, want %v with the vendor's words", name, fault.KindOf(err), err, c.want)
		}
	}
	if err := asked(io.ErrUnexpectedEOF, "look"); !errors.Is(err, fault.Unavailable) {
		t.Errorf("a question without an answer is %v", fault.KindOf(err))
	}
	if err := did(context.Canceled, "act"); !errors.Is(err, context.Canceled) {
		t.Errorf("a canceled act is %v", err)
	}
}

// lossy loses the reply to one call, after it was carried out, or the call
// itself.
type lossy struct {
	soap.RoundTripper
	mu     sync.Mutex
	method string // named in the type of the call's body
	skip   int
	before bool // lose the call
	lost   int
}

func (l *lossy) RoundTrip(ctx context.Context, req, res soap.HasFault) error {
	l.mu.Lock()
	hit := l.lost == 0 && strings.HasSuffix(fmt.Sprintf("%T", req), "."+l.method+"Body")
	if hit {
		l.skip--
	}
	if hit = hit && l.skip < 0; hit {
		l.lost++
	}
	l.mu.Unlock()
	if hit && l.before {
		return io.ErrUnexpectedEOF
	}
	err := l.RoundTripper.RoundTrip(ctx, req, res)
	if hit {
		return io.ErrUnexpectedEOF
	}
	return err
}

// acts are all methods of vSphere by which we change anything, and those by
// which we look.
var acts = []string{
	"CreateVM_Task", "PowerOnVM_Task", "PowerOffVM_Task", "SuspendVM_Task", "ReconfigVM_Task", "Destroy_Task", "UnregisterVM",
	"MakeDirectory", "CreateVirtualDisk_Task", "CopyVirtualDisk_Task", "MoveVirtualDisk_Task", "DeleteVirtualDisk_Task",
	"ExtendVirtualDisk_Task", "DeleteDatastoreFile_Task", "CreateFolder",
	"FindAllByUuid", "FindChild", "RetrievePropertiesEx", "CreateContainerView", "SearchDatastore_Task", "CurrentTime",
	"CreateFilter", "WaitForUpdatesEx",
}

// once are those that a life calls once.
var once = []string{"PowerOffVM_Task", "Destroy_Task", "CreateFolder", "UnregisterVM", "SuspendVM_Task"}

// until repeats a step while it may still come right.
func until(t *testing.T, what string, step func() error) {
	t.Helper()
	for range 8 {
		err := step()
		if err == nil {
			return
		}
		if !fault.KindOf(err).Temporary() && !errors.Is(err, fault.Exists) {
			t.Fatalf("%s: %v (%v), which is not temporary", what, err, fault.KindOf(err))
		}
	}
	t.Fatalf("%s does not come right", what)
}

// life takes a machine through all that can be done with one, each step until
// it comes right, and checks what came of it.
func life(t *testing.T, h *Host, def driver.Definition) {
	t.Helper()
	ctx := t.Context()
	data := bytes.Repeat([]byte("new "), int(estate.MiB)/4)
	fill := func() error { return h.Import(ctx, someID, "data", bytes.NewReader(data)) }
	until(t, "define", func() error { return h.Define(ctx, def) })
	until(t, "import", fill)
	until(t, "snapshot", func() error {
		if names, err := h.Snapshots(ctx, someID); err != nil || len(names) == 1 {
			return err
		}
		return h.Snapshot(ctx, someID, "before")
	})
	until(t, "import again", func() error { return h.Import(ctx, someID, "data", bytes.NewReader(make([]byte, estate.MiB))) })
	until(t, "start", func() error { return h.Start(ctx, someID) })
	until(t, "save", func() error { return h.Save(ctx, someID) })
	until(t, "start again", func() error { return h.Start(ctx, someID) })
	until(t, "stop", func() error { return h.Stop(ctx, someID, 0) })
	until(t, "revert", func() error { return h.Revert(ctx, someID, "before") })
	until(t, "list", func() error {
		all, err := h.List(ctx)
		if err == nil && (len(all) != 1 || all[0].Power != estate.Off || all[0].Starts != 2 || !all[0].Def.Equal(def)) {
			t.Fatalf("List = %+v, want it off after 2 starts", all)
		}
		return err
	})
	until(t, "shelve", func() error { return h.Shelve(ctx, someID) })
	until(t, "define again", func() error { return h.Define(ctx, def) })
	until(t, "export", func() error {
		var got bytes.Buffer
		err := h.Export(ctx, someID, "data", &got)
		if err == nil && !bytes.Equal(got.Bytes(), data) {
			t.Fatal("the disk does not hold what the snapshot kept")
		}
		return err
	})
	until(t, "delete", func() error { return h.Delete(ctx, someID) })
	until(t, "list", func() error {
		all, err := h.List(ctx)
		if len(all) != 0 {
			t.Fatalf("List = %+v after Delete", all)
		}
		return err
	})
}

// Each act of vSphere's fails once, at its first call and at a later one, by
// every way that passes; whoever repeats comes to the same end.
func TestALifeComesRightWhateverFailsOnce(t *testing.T) {
	s := simulate(t)
	h := s.open(t)
	def := definition(s.base(t))
	inner := h.login.inner
	for i, method := range acts {
		skip := i / 2 % 2
		if slices.Contains(once, method) {
			skip = 0
		}
		ways := map[string]func(){
			"has its reply lost": func() { h.login.inner = &lossy{RoundTripper: inner, method: method, skip: skip} },
			"is refused":         func() { s.must(t, "fail %s in-use %d", method, skip) },
			"loses its session":  func() { s.must(t, "fail %s not-authenticated %d", method, skip) },
		}
		if i%2 == 1 { // half of the ways for each half, to be done sooner
			delete(ways, "is refused")
			delete(ways, "loses its session")
			ways["breaks down"] = func() { s.must(t, "fail %s generic %d", method, skip) }
			ways["is not heard"] = func() { h.login.inner = &lossy{RoundTripper: inner, method: method, before: true} }
		}
		all := slices.Sorted(maps.Keys(ways))
		for n, how := range all {
			if testing.Short() && n != i/2%len(all) {
				continue // each act by one way, each way for some act
			}
			prepare := ways[how]
			t.Run(method+" "+how, func(t *testing.T) {
				defer s.tell("heal")
				defer func() { h.login.inner = inner }()
				h.place.folder = "folder of " + method + how // to be made
				prepare()
				life(t, h, def)
				made := s.must(t, "heal")
				if l, loses := h.login.inner.(*lossy); loses && l.lost == 0 || !loses && made == "0" {
					t.Errorf("nothing failed")
				}
			})
		}
	}
}

// The count of power-ons is right whatever became of one that was begun.
func TestAPowerOnThatNobodySawIsCountedIfItCame(t *testing.T) {
	for name, c := range map[string]struct {
		came bool
		want int64
	}{"it came": {true, 1}, "it did not": {false, 0}} {
		t.Run(name, func(t *testing.T) {
			s := simulate(t)
			h := s.open(t)
			if err := h.Define(t.Context(), definition(s.base(t))); err != nil {
				t.Fatal(err)
			}
			turn, err := h.take(t.Context(), string(someID))
			if err != nil {
				t.Fatal(err)
			}
			v, err := h.existing(t.Context(), someID)
			if err == nil {
				err = h.begin(t.Context(), turn, v)
			}
			turn.give()
			if err != nil {
				t.Fatal(err)
			}
			if c.came { // and the guest went at once, before anybody looked
				vm := object.NewVirtualMachine(h.client, v.ref)
				for _, power := range []func(context.Context) (*object.Task, error){vm.PowerOn, vm.PowerOff} {
					task, err := power(t.Context())
					if err == nil {
						err = task.Wait(t.Context())
					}
					if err != nil {
						t.Fatal(err)
					}
				}
			}
			again := s.open(t)
			all, err := again.List(t.Context())
			if err != nil || len(all) != 1 || all[0].Starts != c.want {
				t.Fatalf("List = %+v, %v; want %d starts", all, err, c.want)
			}
			if err := again.Start(t.Context(), someID); err != nil {
				t.Fatal(err)
			}
			if all, err = again.List(t.Context()); err != nil || all[0].Starts != c.want+1 {
				t.Errorf("List = %+v, %v; want %d starts", all, err, c.want+1)
			}
		})
	}
}

// A vCenter's task goes on when nobody waits for it. The next call does.
func TestAWaitThatIsCutLeavesTheTaskToTheNextCall(t *testing.T) {
	s := simulate(t)
	h := s.open(t)
	if err := h.Define(t.Context(), definition(s.base(t))); err != nil {
		t.Fatal(err)
	}
	s.must(t, "delay powerOn 400")
	short, cancel := context.WithCancel(t.Context())
	h.login.inner = &onCall{h.login.inner, func(req soap.HasFault) {
		if _, is := req.(*methods.PowerOnVM_TaskBody); is {
			cancel()
		}
	}}
	begin := time.Now()
	if err := h.Start(short, someID); !errors.Is(err, context.Canceled) {
		t.Fatalf("Start = %v, want canceled", err)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("a canceled Start took %v", took)
	}
	if err := h.Start(t.Context(), someID); err != nil {
		t.Fatal(err)
	}
	all, err := h.List(t.Context())
	if err != nil || len(all) != 1 || all[0].Power != estate.On || all[0].Starts != 1 {
		t.Errorf("List = %+v, %v; want it on after 1 start", all, err)
	}
}

// onCall tells of calls that were carried out.
type onCall struct {
	soap.RoundTripper
	tell func(req soap.HasFault)
}

func (o *onCall) RoundTrip(ctx context.Context, req, res soap.HasFault) error {
	err := o.RoundTripper.RoundTrip(ctx, req, res)
	o.tell(req)
	return err
}

// An administrator ends all sessions but his own.
func TestAnEndedSessionIsBegunAnew(t *testing.T) {
	s := simulate(t)
	h := s.open(t)
	mine, err := h.login.manager.UserSession(t.Context())
	if err != nil || mine == nil {
		t.Fatalf("UserSession = %v, %v", mine, err)
	}
	u := url.URL{Scheme: "https", Host: s.at, Path: "/sdk", User: url.UserPassword(testUser, testPassword)}
	admin, err := govmomi.NewClient(t.Context(), &u, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := admin.SessionManager.TerminateSession(t.Context(), []string{mine.Key}); err != nil {
		t.Fatal(err)
	}
	if err := h.Define(t.Context(), definition(s.base(t))); err != nil {
		t.Fatal(err)
	}
	now, err := h.login.manager.UserSession(t.Context())
	if err != nil || now == nil || now.Key == mine.Key {
		t.Errorf("UserSession = %+v, %v; want another than %s", now, err, mine.Key)
	}
}
