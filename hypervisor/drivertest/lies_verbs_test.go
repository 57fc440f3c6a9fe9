package drivertest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/hypervisor/fakehost"
)

var verbLies = map[string]lie{
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
	"CapabilitiesClaimNoEvidence": func(l *liar, _ *Bench) {
		l.describe = func(d driver.Description) driver.Description {
			d.Capabilities[0].Evidence = estate.Verified
			return d
		}
	},
	"CapabilitiesAreNamedOnce": func(l *liar, _ *Bench) {
		l.describe = func(d driver.Description) driver.Description {
			d.Capabilities = append(d.Capabilities, d.Capabilities[0])
			return d
		}
	},
	"CapabilitiesAreOfItsGuestTypes": func(l *liar, _ *Bench) {
		l.describe = func(d driver.Description) driver.Description {
			d.Capabilities[0].GuestType = "dreamt of"
			return d
		}
	},
	"ListSaysUnknownForWhatItCannotLearn": func(l *liar, _ *Bench) {
		l.list = func(all []driver.Machine) []driver.Machine {
			for i := range all {
				if all[i].Power == estate.PowerUnknown { // it cannot be seen, so it must be off
					all[i].Power = estate.Off
				}
			}
			return all
		}
	},
	"MachinesOutliveTheProcess": func(l *liar, b *Bench) {
		b.Reopen = func() (driver.Host, error) { l.PowerOff(first); return l, nil }
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
