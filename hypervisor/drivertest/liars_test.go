package drivertest

import (
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/hypervisor/fakehost"
)

// liar is a good host with some methods replaced.
type liar struct {
	*fakehost.Host
	describe func(driver.Description) driver.Description
	list     func([]driver.Machine) []driver.Machine
	define   func(context.Context, driver.Definition) error
	start    func(context.Context, estate.MachineID) error
	stop     func(context.Context, estate.MachineID, time.Duration) error
	remove   func(context.Context, estate.MachineID) error
	display  func(context.Context, estate.MachineID) (io.ReadWriteCloser, error)
	attach   func(context.Context, estate.MachineID, driver.Disk) error
	detach   func(context.Context, estate.MachineID, string) error
	attached func([]string) []string
	run      func(context.Context, estate.MachineID, driver.Command) (driver.Output, error)
	export   func(context.Context, estate.MachineID, string, io.Writer) error
	imports  func(context.Context, estate.MachineID, string, io.Reader) error

	snapshots func([]string) []string
	measure   func(driver.Usage) driver.Usage
	templates func([]driver.Template) []driver.Template
	console   func(io.ReadWriteCloser) io.ReadWriteCloser
	deaf      func(estate.MachineID) bool // changes it does not tell of
	survey    func([]estate.Found) []estate.Found
	key       func(driver.Key) driver.Key

	// around does each method named in it otherwise: it is given what the good
	// host would do.
	around map[string]func(good func() error) error
}

// lie makes a liar of a good host, or spoils its bench.
type lie = func(l *liar, b *Bench)

// lies has, for each promise, how a host breaks it and does all else well
// enough. The liar is given complete; what is not replaced is good.
func lies() map[string]lie {
	all := map[string]lie{}
	for _, some := range []map[string]lie{verbLies, displayLies, hotplugLies, guestLies, transferLies, snapshotLies, stateLies, moveLies, watchLies, surveyLies, cloneLies, pauseLies, sealLies} {
		maps.Copy(all, some)
	}
	return all
}

// TestLiars breaks each promise in turn and wants the promise's check to say
// so, and to find nothing wrong with the good host.
func TestLiars(t *testing.T) {
	lies := lies()
	for _, p := range promises() {
		if p.name == "ConcurrentIsSafe" {
			continue // the race detector is its judge
		}
		t.Run(p.name, func(t *testing.T) {
			lie, found := lies[p.name]
			if !found {
				t.Fatal("no liar breaks this promise; write one")
			}
			synctest.Test(t, func(t *testing.T) {
				good, _ := bench(t)
				broken, h := bench(t)
				l := &liar{Host: h, around: map[string]func(func() error) error{}}
				broken.Host = l
				lie(l, &broken)
				if r := p.try(t.Context(), broken); r.Verdict != Broken {
					t.Errorf("a broken driver: %s %s", r.Verdict, r.Reason)
				}
				if r := p.try(t.Context(), good); r.Verdict != Kept {
					t.Errorf("the good driver: %s %s", r.Verdict, r.Reason)
				}
				for _, h := range []driver.Host{l.Host, broken.Other, good.Host, good.Other} {
					h.Delete(context.Background(), first) // ends its connections
				}
			})
		})
	}
	if len(lies) != len(promises())-1 {
		t.Errorf("%d liars for %d promises", len(lies), len(promises())-1)
	}
}

func bench(t *testing.T) (Bench, *fakehost.Host) {
	dir, raw := t.TempDir(), []byte("a base")
	path := filepath.Join(dir, "base")
	if err := os.WriteFile(path, raw, 0o444); err != nil {
		t.Fatal(err)
	}
	opt := fakehost.Options{Site: new(fakehost.Site)}
	h := fakehost.New(opt)
	return Bench{
		Host: h, Base: driver.Content{Path: path, Format: estate.Raw, Size: 512}, Raw: raw, Dir: dir, OS: true,
		Says: fakehost.Greeting, Other: fakehost.New(opt), Stranger: h.Strangers(dir), Blind: h.Blind,
		NIC:    func() (driver.NIC, error) { return driver.NIC{MAC: "02:00:00:00:00:01", Name: "lan"}, nil },
		Reopen: func() (driver.Host, error) { return h, nil },
	}, h
}

// nameless takes an error's kind away.
func nameless(err error) error {
	if errors.Is(err, fault.NotFound) {
		return errors.New("no kind")
	}
	return err
}

func (l *liar) Describe(ctx context.Context) (driver.Description, error) {
	d, err := l.Host.Describe(ctx)
	if l.describe != nil {
		d = l.describe(d)
	}
	return d, err
}

func (l *liar) List(ctx context.Context) ([]driver.Machine, error) {
	all, err := l.Host.List(ctx)
	if l.list != nil {
		all = l.list(all)
	}
	return all, err
}

func (l *liar) Define(ctx context.Context, def driver.Definition) error {
	if l.define != nil {
		return l.define(ctx, def)
	}
	return l.Host.Define(ctx, def)
}

func (l *liar) Start(ctx context.Context, id estate.MachineID) error {
	if l.start != nil {
		return l.start(ctx, id)
	}
	return l.Host.Start(ctx, id)
}

func (l *liar) Stop(ctx context.Context, id estate.MachineID, grace time.Duration) error {
	if l.stop != nil {
		return l.stop(ctx, id, grace)
	}
	return l.Host.Stop(ctx, id, grace)
}

func (l *liar) Delete(ctx context.Context, id estate.MachineID) error {
	if l.remove != nil {
		return l.remove(ctx, id)
	}
	return l.Host.Delete(ctx, id)
}

func (l *liar) Display(ctx context.Context, id estate.MachineID) (io.ReadWriteCloser, error) {
	if l.display != nil {
		return l.display(ctx, id)
	}
	return l.Host.Display(ctx, id)
}

func (l *liar) Attach(ctx context.Context, id estate.MachineID, d driver.Disk) error {
	if l.attach != nil {
		return l.attach(ctx, id, d)
	}
	return l.Host.Attach(ctx, id, d)
}

func (l *liar) Detach(ctx context.Context, id estate.MachineID, name string) error {
	if l.detach != nil {
		return l.detach(ctx, id, name)
	}
	return l.Host.Detach(ctx, id, name)
}

func (l *liar) Attached(ctx context.Context, id estate.MachineID) ([]string, error) {
	names, err := l.Host.Attached(ctx, id)
	if l.attached != nil {
		names = l.attached(names)
	}
	return names, err
}

func (l *liar) Run(ctx context.Context, id estate.MachineID, cmd driver.Command) (driver.Output, error) {
	if l.run != nil {
		return l.run(ctx, id, cmd)
	}
	return l.Host.Run(ctx, id, cmd)
}

func (l *liar) Export(ctx context.Context, id estate.MachineID, disk string, w io.Writer) error {
	if l.export != nil {
		return l.export(ctx, id, disk, w)
	}
	return l.Host.Export(ctx, id, disk, w)
}

func (l *liar) Import(ctx context.Context, id estate.MachineID, disk string, r io.Reader) error {
	if l.imports != nil {
		return l.imports(ctx, id, disk, r)
	}
	return l.Host.Import(ctx, id, disk, r)
}

// do does a method as the lie wants it.
func (l *liar) do(method string, good func() error) error {
	if other, lies := l.around[method]; lies {
		return other(good)
	}
	return good()
}

func (l *liar) Shelve(ctx context.Context, id estate.MachineID) error {
	return l.do("Shelve", func() error { return l.Host.Shelve(ctx, id) })
}

func (l *liar) Arrive(ctx context.Context, def driver.Definition) (at string, err error) {
	err = l.do("Arrive", func() (err error) { at, err = l.Host.Arrive(ctx, def); return err })
	return at, err
}

func (l *liar) Depart(ctx context.Context, id estate.MachineID, at string) error {
	return l.do("Depart", func() error { return l.Host.Depart(ctx, id, at) })
}

func (l *liar) Snapshot(ctx context.Context, id estate.MachineID, name string) error {
	return l.do("Snapshot", func() error { return l.Host.Snapshot(ctx, id, name) })
}

func (l *liar) Revert(ctx context.Context, id estate.MachineID, name string) error {
	return l.do("Revert", func() error { return l.Host.Revert(ctx, id, name) })
}

func (l *liar) DropSnapshot(ctx context.Context, id estate.MachineID, name string) error {
	return l.do("DropSnapshot", func() error { return l.Host.DropSnapshot(ctx, id, name) })
}

func (l *liar) Snapshots(ctx context.Context, id estate.MachineID) (names []string, err error) {
	err = l.do("Snapshots", func() (err error) { names, err = l.Host.Snapshots(ctx, id); return err })
	if l.snapshots != nil {
		names = l.snapshots(names)
	}
	return names, err
}

func (l *liar) Save(ctx context.Context, id estate.MachineID) error {
	return l.do("Save", func() error { return l.Host.Save(ctx, id) })
}

func (l *liar) Resize(ctx context.Context, id estate.MachineID, cpus int, memory estate.Bytes) error {
	return l.do("Resize", func() error { return l.Host.Resize(ctx, id, cpus, memory) })
}

func (l *liar) Measure(ctx context.Context, id estate.MachineID) (u driver.Usage, err error) {
	err = l.do("Measure", func() (err error) { u, err = l.Host.Measure(ctx, id); return err })
	if l.measure != nil {
		u = l.measure(u)
	}
	return u, err
}

func (l *liar) Console(ctx context.Context, id estate.MachineID) (conn io.ReadWriteCloser, err error) {
	err = l.do("Console", func() (err error) { conn, err = l.Host.Console(ctx, id); return err })
	if l.console != nil {
		conn = l.console(conn)
	}
	return conn, err
}

func (l *liar) Watch(ctx context.Context, changed func(estate.MachineID)) error {
	return l.do("Watch", func() error {
		return l.Host.Watch(ctx, func(id estate.MachineID) {
			if l.deaf == nil || !l.deaf(id) {
				changed(id)
			}
		})
	})
}

func (l *liar) Survey(ctx context.Context) (all []estate.Found, err error) {
	err = l.do("Survey", func() (err error) { all, err = l.Host.Survey(ctx); return err })
	if l.survey != nil {
		all = l.survey(all)
	}
	return all, err
}

func (l *liar) Adopt(ctx context.Context, id estate.MachineID) error {
	return l.do("Adopt", func() error { return l.Host.Adopt(ctx, id) })
}

func (l *liar) Release(ctx context.Context, id estate.MachineID) error {
	return l.do("Release", func() error { return l.Host.Release(ctx, id) })
}
