package drivertest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
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
}

// lies has, for each promise, how a host breaks it and does all else well
// enough. The liar is given complete; what is not replaced is good.
var lies = map[string]func(l *liar, b *Bench){
	"DescribeSaysWhoItIs": func(l *liar, _ *Bench) {
		l.describe = func(d driver.Description) driver.Description { d.Because = ""; return d }
	},
	"DescribeIsStable": func(l *liar, _ *Bench) {
		n := 0
		l.describe = func(d driver.Description) driver.Description {
			n++
			d.Capabilities[0].Has = n%2 == 0
			return d
		}
	},
	"DeclaredIsImplemented": func(l *liar, b *Bench) { b.Host = struct{ driver.Host }{l} },
	"ImplementedIsDeclared": func(l *liar, _ *Bench) {
		l.describe = func(d driver.Description) driver.Description {
			d.Capabilities[1] = estate.CapabilityReport{Name: d.Capabilities[1].Name, Reason: "modesty"}
			return d
		}
	},
	"AbsenceHasAReason": func(l *liar, _ *Bench) {
		l.describe = func(d driver.Description) driver.Description {
			d.Capabilities = append(d.Capabilities, estate.CapabilityReport{Name: estate.CanSnapshot})
			return d
		}
	},
	"CanceledReturns": func(l *liar, _ *Bench) {
		l.stop = func(_ context.Context, id estate.MachineID, grace time.Duration) error {
			return l.Host.Stop(context.Background(), id, grace)
		}
	},
	"CutDefineIsFinishedByTheNext": func(l *liar, _ *Bench) {
		l.define = func(ctx context.Context, def driver.Definition) error {
			if ctx.Err() != nil { // half a machine stays
				half := def
				half.Disks = nil
				l.Host.Define(context.Background(), half)
				return ctx.Err()
			}
			return l.Host.Define(ctx, def)
		}
	},
	"CutStartIsFinishedByTheNext": func(l *liar, _ *Bench) {
		l.start = func(ctx context.Context, id estate.MachineID) error {
			if ctx.Err() != nil { // it had been started, and what came of it is forgotten
				l.Host.Start(context.Background(), id)
				l.PowerOff(id)
				return ctx.Err()
			}
			return l.Host.Start(ctx, id)
		}
	},
	"ListIsInOrderOfID": func(l *liar, _ *Bench) {
		l.list = func(all []driver.Machine) []driver.Machine { slices.Reverse(all); return all }
	},
	"ListHasTheDefinition": func(l *liar, _ *Bench) {
		l.list = func(all []driver.Machine) []driver.Machine {
			for i := range all {
				all[i].Def.Screen = estate.Screen{}
			}
			return all
		}
	},
	"ListHasWhatAnEarlierProcessDefined": func(_ *liar, b *Bench) {
		b.Reopen = func() (driver.Host, error) { return fakehost.New(fakehost.Options{}), nil }
	},
	"DefineMakesItOff": func(l *liar, _ *Bench) {
		l.define = func(ctx context.Context, def driver.Definition) error {
			return errors.Join(l.Host.Define(ctx, def), l.Host.Start(ctx, def.ID))
		}
	},
	"DefineTwiceIsOnce": func(l *liar, _ *Bench) {
		l.define = once(l, func(ctx context.Context, def driver.Definition) error {
			return fault.Exists.Errorf("machine %s exists", def.ID)
		})
	},
	"DefineLeavesARunningMachineAlone": func(l *liar, _ *Bench) {
		l.define = once(l, func(ctx context.Context, def driver.Definition) error {
			return errors.Join(l.Host.Delete(ctx, def.ID), l.Host.Define(ctx, def))
		})
	},
	"DefineUnequalIsExists": func(l *liar, _ *Bench) {
		l.define = once(l, func(context.Context, driver.Definition) error { return nil })
	},
	"DefineUnequalKeepsTheOld": func(l *liar, _ *Bench) {
		l.define = once(l, func(ctx context.Context, def driver.Definition) error {
			return errors.Join(l.Host.Delete(ctx, def.ID), l.Host.Define(ctx, def), fault.Exists)
		})
	},
	"DefineLeavesTheBaseAlone": func(l *liar, b *Bench) {
		l.imports = func(_ context.Context, _ estate.MachineID, _ string, r io.Reader) error {
			data, err := io.ReadAll(r)
			os.Chmod(b.Base.Path, 0o600)
			return errors.Join(err, os.WriteFile(b.Base.Path, data, 0o600))
		}
	},
	"StartPowersOn": func(l *liar, _ *Bench) {
		l.start = func(context.Context, estate.MachineID) error { return nil }
	},
	"StartTwiceIsOnce":        restarts,
	"StartAtOnceByManyIsOnce": restarts,
	"StartsAreCounted": func(l *liar, _ *Bench) {
		l.list = func(all []driver.Machine) []driver.Machine {
			for i := range all {
				all[i].Starts = min(all[i].Starts, 1)
			}
			return all
		}
	},
	"StartUnknownIsNotFound": func(l *liar, _ *Bench) {
		l.start = func(ctx context.Context, id estate.MachineID) error { return nameless(l.Host.Start(ctx, id)) }
	},
	"StopPullsThePlug": func(l *liar, _ *Bench) {
		l.stop = func(context.Context, estate.MachineID, time.Duration) error { return nil }
	},
	"StopWithGracePullsThePlugInTheEnd": func(l *liar, _ *Bench) {
		l.stop = func(ctx context.Context, id estate.MachineID, grace time.Duration) error {
			if grace > 0 {
				return nil // it was asked; that must do
			}
			return l.Host.Stop(ctx, id, 0)
		}
	},
	"StopAsksTheGuest": func(l *liar, _ *Bench) { l.Host = fakehost.New(fakehost.Options{Deaf: true}) },
	"StopTwiceIsOnce": func(l *liar, _ *Bench) {
		stopped := false
		l.stop = func(ctx context.Context, id estate.MachineID, grace time.Duration) error {
			if stopped {
				return fault.Conflict.Errorf("machine %s is off", id)
			}
			stopped = true
			return l.Host.Stop(ctx, id, grace)
		}
	},
	"StopUnknownIsNotFound": func(l *liar, _ *Bench) {
		l.stop = func(ctx context.Context, id estate.MachineID, grace time.Duration) error {
			return nameless(l.Host.Stop(ctx, id, grace))
		}
	},
	"DeleteRemoves": func(l *liar, _ *Bench) {
		l.remove = func(context.Context, estate.MachineID) error { return nil }
	},
	"DeleteStopsARunningMachine": func(l *liar, _ *Bench) {
		l.remove = func(ctx context.Context, id estate.MachineID) error {
			all, err := l.Host.List(ctx)
			for _, m := range all {
				if m.ID == id && m.Power == estate.On {
					return fault.Conflict.Errorf("machine %s runs", id)
				}
			}
			return errors.Join(err, l.Host.Delete(ctx, id))
		}
	},
	"DeleteUnknownIsSuccess": func(l *liar, _ *Bench) {
		l.remove = func(ctx context.Context, id estate.MachineID) error {
			if id == nobody {
				return fault.NotFound.Errorf("no machine %s", id)
			}
			return l.Host.Delete(ctx, id)
		}
	},
	"DeleteKeepsVolumes": func(l *liar, b *Bench) {
		l.remove = func(ctx context.Context, id estate.MachineID) error {
			os.Remove(filepath.Join(b.Dir, "home.img"))
			return l.Host.Delete(ctx, id)
		}
	},
	"DeleteForgetsTheStarts": func(l *liar, _ *Bench) {
		gone := map[estate.MachineID]int64{}
		l.remove = func(ctx context.Context, id estate.MachineID) error {
			gone[id]++
			return l.Host.Delete(ctx, id)
		}
		l.list = func(all []driver.Machine) []driver.Machine {
			for i := range all {
				all[i].Starts += gone[all[i].ID]
			}
			return all
		}
	},
	"DeleteRemovesTheDisks": func(l *liar, _ *Bench) {
		kept := map[estate.MachineID][]byte{}
		l.imports = func(ctx context.Context, id estate.MachineID, disk string, r io.Reader) error {
			data, err := io.ReadAll(r)
			kept[id] = data
			return errors.Join(err, l.Host.Import(ctx, id, disk, bytes.NewReader(data)))
		}
		l.define = func(ctx context.Context, def driver.Definition) error {
			err := l.Host.Define(ctx, def)
			if kept[def.ID] != nil {
				return errors.Join(err, l.Host.Import(ctx, def.ID, "root", bytes.NewReader(kept[def.ID])))
			}
			return err
		}
	},
	"DisplayNamesItsProtocol": func(l *liar, _ *Bench) {
		l.describe = func(d driver.Description) driver.Description {
			for i := range d.Capabilities {
				d.Capabilities[i].Value = ""
			}
			return d
		}
	},
	"DisplaySpeaksItsProtocol": func(l *liar, _ *Bench) {
		l.display = func(context.Context, estate.MachineID) (io.ReadWriteCloser, error) {
			return os.Open(os.DevNull)
		}
	},
	"DisplaysAreConnectionsOfTheirOwn": func(l *liar, _ *Bench) {
		var one io.ReadWriteCloser
		l.display = func(ctx context.Context, id estate.MachineID) (conn io.ReadWriteCloser, err error) {
			if one != nil {
				one.Close() // the newcomer throws out who looks
				return one, nil
			}
			one, err = l.Host.Display(ctx, id)
			return one, err
		}
	},
	"DisplayOfAMachineThatIsOffIsConflict": func(l *liar, _ *Bench) {
		l.display = func(ctx context.Context, id estate.MachineID) (io.ReadWriteCloser, error) {
			l.Host.Start(ctx, id)
			return l.Host.Display(ctx, id)
		}
	},
	"DisplayUnknownIsNotFound": func(l *liar, _ *Bench) {
		l.display = func(ctx context.Context, id estate.MachineID) (io.ReadWriteCloser, error) {
			conn, err := l.Host.Display(ctx, id)
			return conn, nameless(err)
		}
	},
	"AttachShows": func(l *liar, _ *Bench) {
		l.attach = func(context.Context, estate.MachineID, driver.Disk) error { return nil }
	},
	"AttachedIsSorted": func(l *liar, _ *Bench) {
		l.attached = func(names []string) []string { slices.Reverse(names); return names }
	},
	"AttachTwiceIsOnce": func(l *liar, _ *Bench) {
		l.attach = func(ctx context.Context, id estate.MachineID, d driver.Disk) error {
			if names, _ := l.Host.Attached(ctx, id); slices.Contains(names, d.Name) {
				return fault.Exists.Errorf("disk %s is attached", d.Name)
			}
			return l.Host.Attach(ctx, id, d)
		}
	},
	"AttachAnotherIsExists": func(l *liar, _ *Bench) {
		l.attach = func(ctx context.Context, id estate.MachineID, d driver.Disk) error {
			if names, _ := l.Host.Attached(ctx, id); slices.Contains(names, d.Name) {
				return nil
			}
			return l.Host.Attach(ctx, id, d)
		}
	},
	"AttachAnotherUnderADefinedNameIsExists": func(l *liar, _ *Bench) {
		l.attach = func(ctx context.Context, id estate.MachineID, d driver.Disk) error {
			if d.Name == "root" {
				return nil
			}
			return l.Host.Attach(ctx, id, d)
		}
	},
	"AttachToAMachineThatIsOffIsConflict": func(l *liar, _ *Bench) {
		l.attach = func(ctx context.Context, id estate.MachineID, d driver.Disk) error {
			if err := l.Host.Attach(ctx, id, d); !errors.Is(err, fault.Conflict) {
				return err
			}
			return nil
		}
	},
	"AttachUnknownIsNotFound": func(l *liar, _ *Bench) {
		l.attach = func(ctx context.Context, id estate.MachineID, d driver.Disk) error {
			return nameless(l.Host.Attach(ctx, id, d))
		}
	},
	"AttachBeyondTheSlotsIsNoCapacity": func(l *liar, _ *Bench) {
		l.attach = func(ctx context.Context, id estate.MachineID, d driver.Disk) error {
			if err := l.Host.Attach(ctx, id, d); !errors.Is(err, fault.NoCapacity) {
				return err
			}
			return nil
		}
	},
	"AttachedGoesWithThePower": func(l *liar, _ *Bench) {
		ever := map[string]bool{}
		l.attach = func(ctx context.Context, id estate.MachineID, d driver.Disk) error {
			ever[d.Name] = true
			return l.Host.Attach(ctx, id, d)
		}
		l.attached = func([]string) []string {
			var names []string
			for n := range ever {
				names = append(names, n)
			}
			return names
		}
	},
	"DetachTakesOut": func(l *liar, _ *Bench) {
		l.detach = func(context.Context, estate.MachineID, string) error { return nil }
	},
	"DetachLeavesTheOthers": func(l *liar, _ *Bench) {
		l.detach = func(ctx context.Context, id estate.MachineID, _ string) error {
			names, err := l.Host.Attached(ctx, id)
			for _, n := range names {
				err = errors.Join(err, l.Host.Detach(ctx, id, n))
			}
			return err
		}
	},
	"DetachAbsentIsSuccess": func(l *liar, _ *Bench) {
		l.detach = func(ctx context.Context, id estate.MachineID, name string) error {
			if names, _ := l.Host.Attached(ctx, id); !slices.Contains(names, name) {
				return fault.NotFound.Errorf("no disk %s", name)
			}
			return l.Host.Detach(ctx, id, name)
		}
	},
	"RunReturnsTheOutput": output(func(o *driver.Output) { o.Stdout = nil }),
	"RunPassesTheInput": func(l *liar, _ *Bench) {
		l.run = func(ctx context.Context, id estate.MachineID, cmd driver.Command) (driver.Output, error) {
			cmd.Stdin = nil
			return l.Host.Run(ctx, id, cmd)
		}
	},
	"RunThatExitsUnequalToZeroIsNoError": func(l *liar, _ *Bench) {
		l.run = func(ctx context.Context, id estate.MachineID, cmd driver.Command) (driver.Output, error) {
			out, err := l.Host.Run(ctx, id, cmd)
			if out.Exit != 0 {
				err = fault.Internal.Errorf("exit %d", out.Exit)
			}
			return out, err
		}
	},
	"RunBoundsTheOutput": output(func(o *driver.Output) { o.Stdout = append(o.Stdout, o.Stdout...) }),
	"RunWithoutAnAgentIsUnavailable": func(l *liar, _ *Bench) {
		l.run = func(ctx context.Context, id estate.MachineID, cmd driver.Command) (driver.Output, error) {
			out, err := l.Host.Run(ctx, id, cmd)
			if errors.Is(err, fault.Unavailable) {
				err = fault.Conflict.Errorf("no agent")
			}
			return out, err
		}
	},
	"RunUnknownIsNotFound": func(l *liar, _ *Bench) {
		l.run = func(ctx context.Context, id estate.MachineID, cmd driver.Command) (driver.Output, error) {
			out, err := l.Host.Run(ctx, id, cmd)
			if errors.Is(err, fault.NotFound) {
				err = fault.Unavailable.Errorf("no agent")
			}
			return out, err
		}
	},
	"ExportIsTheWholeDisk": func(l *liar, _ *Bench) {
		l.export = func(ctx context.Context, id estate.MachineID, disk string, w io.Writer) error {
			var all bytes.Buffer
			err := l.Host.Export(ctx, id, disk, &all)
			_, err2 := w.Write(bytes.TrimRight(all.Bytes(), "\x00")) // as much as is used
			return errors.Join(err, err2)
		}
	},
	"ACopyBeginsAsItsBase": func(l *liar, _ *Bench) {
		l.export = func(ctx context.Context, id estate.MachineID, disk string, w io.Writer) error {
			_, err := w.Write(make([]byte, diskSize)) // the base is left out
			return err
		}
	},
	"ExportOfARunningMachineIsConflict": func(l *liar, _ *Bench) {
		l.export = func(ctx context.Context, id estate.MachineID, disk string, w io.Writer) error {
			if err := l.Host.Export(ctx, id, disk, w); !errors.Is(err, fault.Conflict) {
				return err
			}
			return nil
		}
	},
	"ImportOfARunningMachineIsConflict": func(l *liar, _ *Bench) {
		l.imports = func(ctx context.Context, id estate.MachineID, disk string, r io.Reader) error {
			if err := l.Host.Import(ctx, id, disk, r); !errors.Is(err, fault.Conflict) {
				return err
			}
			return nil
		}
	},
	"ImportReplaces": func(l *liar, _ *Bench) {
		imported := false
		l.imports = func(ctx context.Context, id estate.MachineID, disk string, r io.Reader) error {
			if imported { // only a copy is replaced
				return nil
			}
			imported = true
			return l.Host.Import(ctx, id, disk, r)
		}
	},
	"ImportReplacesAVolume": func(l *liar, _ *Bench) {
		l.imports = func(ctx context.Context, id estate.MachineID, disk string, r io.Reader) error {
			if disk == "home" {
				return nil
			}
			return l.Host.Import(ctx, id, disk, r)
		}
	},
	"ImportOfTooLittleIsRefused": func(l *liar, _ *Bench) {
		l.imports = func(ctx context.Context, id estate.MachineID, disk string, r io.Reader) error {
			return l.Host.Import(ctx, id, disk, io.LimitReader(io.MultiReader(r, endless{}), int64(diskSize)))
		}
	},
	"ImportOfTooMuchIsRefused": func(l *liar, _ *Bench) {
		l.imports = func(ctx context.Context, id estate.MachineID, disk string, r io.Reader) error {
			return l.Host.Import(ctx, id, disk, io.LimitReader(r, int64(diskSize)))
		}
	},
	"ABrokenImportLeavesTheOld": func(l *liar, _ *Bench) {
		l.imports = func(ctx context.Context, id estate.MachineID, disk string, r io.Reader) error {
			data, err := io.ReadAll(r)
			full := make([]byte, diskSize)
			copy(full, data)
			return errors.Join(err, l.Host.Import(ctx, id, disk, bytes.NewReader(full)))
		}
	},
	"TransferOfAnUnknownDiskIsNotFound": func(l *liar, _ *Bench) {
		l.export = func(ctx context.Context, id estate.MachineID, disk string, w io.Writer) error {
			return nameless(l.Host.Export(ctx, id, disk, w))
		}
	},
}

// once is Define that does something else where the machine exists.
func once(l *liar, again func(context.Context, driver.Definition) error) func(context.Context, driver.Definition) error {
	defined := map[estate.MachineID]bool{}
	return func(ctx context.Context, def driver.Definition) error {
		if defined[def.ID] {
			return again(ctx, def)
		}
		defined[def.ID] = true
		return l.Host.Define(ctx, def)
	}
}

// restarts starts a machine that runs a second time.
func restarts(l *liar, _ *Bench) {
	l.start = func(ctx context.Context, id estate.MachineID) error {
		l.PowerOff(id)
		return l.Host.Start(ctx, id)
	}
}

// output spoils what commands leave behind.
func output(spoil func(*driver.Output)) func(*liar, *Bench) {
	return func(l *liar, _ *Bench) {
		l.run = func(ctx context.Context, id estate.MachineID, cmd driver.Command) (driver.Output, error) {
			out, err := l.Host.Run(ctx, id, cmd)
			spoil(&out)
			return out, err
		}
	}
}

// nameless takes an error's kind away.
func nameless(err error) error {
	if errors.Is(err, fault.NotFound) {
		return errors.New("no kind")
	}
	return err
}

type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

// TestLiars breaks each promise in turn and wants the promise's check to say
// so, and to find nothing wrong with the good host.
func TestLiars(t *testing.T) {
	for _, p := range promises {
		if p.name == "ConcurrentIsSafe" {
			continue // the race detector is its judge
		}
		t.Run(p.name, func(t *testing.T) {
			lie, found := lies[p.name]
			if !found {
				t.Fatal("no liar breaks this promise; write one")
			}
			synctest.Test(t, func(t *testing.T) {
				good, broken := bench(t), bench(t)
				l := &liar{Host: fakehost.New(fakehost.Options{})}
				broken.Host = l
				lie(l, &broken)
				if p.keeps(t.Context(), broken) == nil {
					t.Error("a broken driver passed")
				}
				if err := p.keeps(t.Context(), good); err != nil {
					t.Errorf("the good driver failed: %v", err)
				}
				l.Delete(context.Background(), first)
				good.Host.Delete(context.Background(), first)
			})
		})
	}
	if len(lies) != len(promises)-1 {
		t.Errorf("%d liars for %d promises", len(lies), len(promises)-1)
	}
}

func bench(t *testing.T) Bench {
	dir, raw := t.TempDir(), []byte("a base")
	path := filepath.Join(dir, "base")
	if err := os.WriteFile(path, raw, 0o444); err != nil {
		t.Fatal(err)
	}
	h := fakehost.New(fakehost.Options{})
	return Bench{Host: h, Base: driver.Content{Path: path, Format: estate.Raw, Size: 512}, Raw: raw, Dir: dir, OS: true,
		Reopen: func() (driver.Host, error) { return h, nil }}
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
