package drivertest

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/hypervisor/fakehost"
)

var moveLies = map[string]lie{
	"MovesAreBetweenHostsOfOneValue": func(_ *liar, b *Bench) { b.Other = fakehost.New(fakehost.Options{}) },
	"ArriveRunsNothing": other(func(l *liar) {
		l.around["Arrive"] = func(good func() error) error {
			ctx := context.Background()
			return errors.Join(good(), l.Host.Define(ctx, driver.Definition{ID: first}), l.Host.Start(ctx, first))
		}
	}),
	"ArriveTwiceIsReady": other(func(l *liar) {
		n := 0
		l.around["Arrive"] = func(good func() error) error {
			if n++; n > 1 {
				return fault.Exists.Errorf("it is being waited for")
			}
			return good()
		}
	}),
	"DeleteForgetsWhatNeverCame": other(func(l *liar) {
		l.remove = func(context.Context, estate.MachineID) error { return nil }
	}),
	"DepartRunsThere": omits("Depart"),
	"DepartShelvesHere": func(l *liar, _ *Bench) {
		l.around["Depart"] = func(good func() error) error { // the old one stays, off
			ctx := context.Background()
			all, err := l.Host.List(ctx)
			return errors.Join(err, good(), l.Host.Delete(ctx, first), l.Host.Define(ctx, all[0].Def))
		}
	},
	"DepartCarriesTheMemory": restartsThere,
	"DepartCarriesTheDisks": func(l *liar, b *Bench) {
		l.around["Depart"] = func(good func() error) error {
			ctx := context.Background()
			all, err := l.Host.List(ctx)
			there := b.Other
			return errors.Join(err, good(), there.Delete(ctx, first), there.Define(ctx, all[0].Def), there.Start(ctx, first))
		}
	},
	"DepartToNowhereLeavesItRunning": func(l *liar, _ *Bench) {
		l.around["Depart"] = func(good func() error) error {
			l.PowerOff(first)
			return fault.Unavailable.Errorf("nobody is there")
		}
	},
	"DepartOfAMachineThatIsOffIsConflict": suppresses("Depart", fault.Conflict),
}

// other has the second host lie.
func other(lie func(*liar)) lie {
	return func(_ *liar, b *Bench) {
		l := &liar{Host: b.Other.(*fakehost.Host), around: map[string]func(func() error) error{}}
		b.Other = l
		lie(l)
	}
}

// restartsThere moves disks only.
func restartsThere(l *liar, b *Bench) {
	l.around["Depart"] = func(good func() error) error {
		ctx := context.Background()
		return errors.Join(good(), b.Other.Stop(ctx, first, 0), b.Other.Start(ctx, first))
	}
}

var watchLies = map[string]lie{
	"WatchTellsOfAStart": isDeaf,
	"WatchTellsOfAStop":  isDeaf,
	"WatchTellsOfMachinesOfOthers": func(l *liar, _ *Bench) {
		l.deaf = func(id estate.MachineID) bool { return id != first }
	},
	"WatchEndsWithItsContext": func(l *liar, _ *Bench) {
		l.around["Watch"] = func(good func() error) error { return errors.Join(good(), context.Canceled) }
	},
}

func isDeaf(l *liar, _ *Bench) { l.deaf = func(id estate.MachineID) bool { return id == first } }

var surveyLies = map[string]lie{
	"SurveyHasTheMachinesOfOthers": finds(func([]estate.Found) []estate.Found { return nil }),
	"SurveyHasNoneOfOurs": finds(func(all []estate.Found) []estate.Found {
		return append(all, estate.Found{ID: first})
	}),
	"SurveyIsInOrderOfID": finds(func(all []estate.Found) []estate.Found { slices.Reverse(all); return all }),
	"SurveyChangesNothing": func(l *liar, _ *Bench) {
		n := 0
		l.survey = func(all []estate.Found) []estate.Found {
			n++
			for i := range all {
				all[i].CPUs = n
			}
			return all
		}
	},
	"ListHasNoneOfOthers": func(l *liar, _ *Bench) {
		l.list = func(all []driver.Machine) []driver.Machine {
			others, _ := l.Host.Survey(context.Background())
			for _, f := range others {
				all = append(all, driver.Machine{ID: f.ID})
			}
			return all
		}
	},
	"AdoptMakesItOurs": omits("Adopt"),
	"AdoptTakesItFromTheOthers": func(l *liar, _ *Bench) {
		seen := map[estate.MachineID]estate.Found{}
		l.survey = func(all []estate.Found) []estate.Found {
			for _, f := range all {
				seen[f.ID] = f
			}
			return slices.SortedFunc(maps.Values(seen), func(a, b estate.Found) int { return cmp.Compare(a.ID, b.ID) })
		}
	},
	"AdoptLeavesThePower": func(l *liar, _ *Bench) {
		l.list = func(all []driver.Machine) []driver.Machine {
			for i := range all {
				all[i].Power = estate.PowerUnknown
			}
			return all
		}
	},
	"AdoptTwiceIsOnce": func(l *liar, _ *Bench) {
		n := 0
		l.around["Adopt"] = func(good func() error) error {
			if n++; n > 1 {
				return fault.NotFound.Errorf("no such machine of others")
			}
			return good()
		}
	},
	"AdoptUnknownIsNotFound":              suppresses("Adopt", fault.NotFound),
	"AdoptDespiteAnObstacleIsUnsupported": suppresses("Adopt", fault.Unsupported),
	"AdoptedDisksAreFiles": func(l *liar, _ *Bench) {
		l.list = func(all []driver.Machine) []driver.Machine {
			for _, m := range all {
				for i := range m.Def.Disks {
					m.Def.Disks[i].Base, m.Def.Disks[i].File = m.Def.Disks[i].File, nil
				}
			}
			return all
		}
	},
	"DeleteKeepsTheDisksOfAnAdopted": func(l *liar, b *Bench) {
		l.remove = func(ctx context.Context, id estate.MachineID) error {
			return errors.Join(l.Host.Delete(ctx, id), os.Remove(filepath.Join(b.Dir, string(id))))
		}
	},
	"AdoptedOutlivesTheProcess": forgetful,
	"ReleaseGivesItBack": func(l *liar, _ *Bench) {
		l.around["Release"] = func(good func() error) error {
			ctx := context.Background()
			all, err := l.Host.List(ctx)
			for _, m := range all {
				if m.Power == estate.On {
					err = errors.Join(err, l.Host.Stop(ctx, m.ID, 0))
				}
			}
			return errors.Join(err, good())
		}
	},
	"ReleaseOfOneNotOursIsSuccess": func(l *liar, _ *Bench) {
		l.around["Release"] = func(func() error) error { return fault.NotFound.Errorf("no machine of ours") }
	},
	"ReleaseOfOneWeDefinedIsConflict": suppresses("Release", fault.Conflict),
}

// finds spoils what a survey finds.
func finds(spoil func([]estate.Found) []estate.Found) lie {
	return func(l *liar, _ *Bench) { l.survey = spoil }
}
