package drivertest

import (
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

var cloneLies = map[string]lie{
	"FreezeMakesATemplate": func(l *liar, _ *Bench) { // the machine just goes
		l.around["Freeze"] = func(func() error) error { return l.Host.Delete(context.Background(), third) }
	},
	"FreezeTakesItFromTheMachines": func(l *liar, _ *Bench) {
		l.list = func(all []driver.Machine) []driver.Machine {
			return append(all, driver.Machine{ID: third, Power: estate.Off})
		}
	},
	"FreezeAgainIsSuccess":          onlyOnce("Freeze", fault.NotFound),
	"FreezeUnderATakenNameIsExists": suppresses("Freeze", fault.Exists),
	"FreezeThatFailsLeavesTheMachineRunning": func(l *liar, _ *Bench) {
		l.around["Freeze"] = func(good func() error) error {
			err := good()
			if err != nil {
				l.PowerOff(first)
			}
			return err
		}
	},
	"FreezeOfAMachineThatIsOffIsConflict": suppresses("Freeze", fault.Conflict),
	"FreezeUnknownIsNotFound":             suppresses("Freeze", fault.NotFound),
	"FreezeWithAFileIsInvalid":            suppresses("Freeze", fault.Invalid),
	"TemplatesAreSorted": func(l *liar, _ *Bench) {
		l.templates = func(all []driver.Template) []driver.Template { slices.Reverse(all); return all }
	},
	"TemplatesOutliveTheProcess": func(l *liar, b *Bench) {
		b.Reopen = func() (driver.Host, error) { return l, l.Host.DropTemplate(context.Background(), "a") }
	},
	"DropTemplateForgetsIt": omits("DropTemplate"),
	"DropTemplateLeavesTheOthers": func(l *liar, _ *Bench) {
		l.around["DropTemplate"] = func(good func() error) error {
			return errors.Join(good(), l.Host.DropTemplate(context.Background(), "b"))
		}
	},
	"DropTemplateKeepsRunningClones": func(l *liar, _ *Bench) {
		l.around["DropTemplate"] = func(good func() error) error { l.PowerOff(first); return good() }
	},
	"DropTemplateKeepsDisksOfClones": func(l *liar, _ *Bench) {
		l.around["DropTemplate"] = func(good func() error) error {
			return errors.Join(l.Host.Import(context.Background(), first, "data", reader(make([]byte, diskSize))), good())
		}
	},
	"DropTemplateKeepsClonesThatHaveNotBegun": func(l *liar, _ *Bench) {
		l.around["DropTemplate"] = func(good func() error) error { // its memory goes with it
			return errors.Join(l.Host.Resize(context.Background(), first, 1, 32*estate.MiB), good())
		}
	},
	"DropTemplateOfAnUnknownNameIsSuccess": func(l *liar, _ *Bench) {
		l.around["DropTemplate"] = func(func() error) error { return fault.NotFound.Errorf("no such template") }
	},
	"DefineFromAnUnknownTemplateIsNotFound":       defines(fault.NotFound),
	"DefineFromATemplateOfOtherHardwareIsInvalid": defines(fault.Invalid),

	"CloneIsDefinedAsItWasAsked": func(l *liar, _ *Bench) {
		l.list = func(all []driver.Machine) []driver.Machine {
			for i := range all {
				all[i].Def.Name = "trial" // the template's
			}
			return all
		}
	},
	"CloneStartsOnce": func(l *liar, _ *Bench) {
		l.list = func(all []driver.Machine) []driver.Machine {
			for i := range all {
				all[i].Starts++ // the template's too
			}
			return all
		}
	},
	"CloneGoesOn":               bootsCold,
	"CloneThatStartsAgainBoots": remembersAlways,
	"CloneBootsAfterAnImport":   remembersAlways,
	"CloneBeginsWithTheTemplatesDisks": func(l *liar, _ *Bench) {
		l.define = func(ctx context.Context, def driver.Definition) error {
			err := l.Host.Define(ctx, def)
			if def.Template != "" {
				err = errors.Join(err, l.Host.Import(ctx, def.ID, "data", reader(make([]byte, diskSize))))
			}
			return err
		}
	},
	"ClonesAreApartOnDisk": func(l *liar, _ *Bench) { // both write to one file
		l.imports = func(ctx context.Context, id estate.MachineID, disk string, r io.Reader) error {
			data, err := io.ReadAll(r)
			for _, other := range []estate.MachineID{first, second} {
				if e := l.Host.Import(ctx, other, disk, reader(data)); other == id {
					err = errors.Join(err, e)
				}
			}
			if id == third {
				err = l.Host.Import(ctx, id, disk, reader(data))
			}
			return err
		}
	},
	"CloneLeavesTheTemplate":            spoilsTheTemplate,
	"CloneKeepsItsDisksWhenSnapshotsGo": spoilsTheTemplate,
	"CloneHasWhatWasAttached": func(l *liar, _ *Bench) {
		l.attached = func([]string) []string { return nil }
	},
	"TwoClonesRunAtOnce": func(l *liar, _ *Bench) {
		l.start = func(ctx context.Context, id estate.MachineID) error {
			if id == second {
				l.PowerOff(first)
			}
			return l.Host.Start(ctx, id)
		}
	},
	"DeletedCloneLeavesTheOthers": func(l *liar, _ *Bench) {
		l.remove = func(ctx context.Context, id estate.MachineID) error {
			return errors.Join(l.Host.Import(ctx, first, "data", reader(make([]byte, diskSize))), l.Host.Delete(ctx, id))
		}
	},

	"CloneHasNoNetworkUntilItJoins": func(l *liar, _ *Bench) {
		l.start = func(ctx context.Context, id estate.MachineID) error {
			return errors.Join(l.Host.Start(ctx, id), l.Host.Join(ctx, id))
		}
	},
	"JoinPlugsTheNetworkCardsIn": omits("Join"),
	"CloneHasItsTemplatesCardsAndALinkOnceItJoins": func(l *liar, _ *Bench) {
		l.start = func(ctx context.Context, id estate.MachineID) error {
			return errors.Join(l.Host.Start(ctx, id), l.Host.Join(ctx, id))
		}
	},
	"JoinTwiceIsOnce":                   onlyOnce("Join", fault.Exists),
	"JoinOfAMachineThatIsOffIsConflict": suppresses("Join", fault.Conflict),
	"JoinUnknownIsNotFound":             suppresses("Join", fault.NotFound),
}

var pauseLies = map[string]lie{
	"PauseShows":       omits("Pause"),
	"PauseTwiceIsOnce": onlyOnce("Pause", fault.Conflict),
	"PausedMachineUsesNoCPU": measures(func(n int) driver.Usage {
		return driver.Usage{CPU: time.Duration(n) * time.Second}
	}),
	"PausedMachineHasAScreen": func(l *liar, _ *Bench) {
		l.display = func(context.Context, estate.MachineID) (io.ReadWriteCloser, error) {
			return nil, fault.Conflict.Errorf("the machine stands still")
		}
	},
	"PausedGuestIsUnavailable": func(l *liar, _ *Bench) {
		l.run = func(ctx context.Context, id estate.MachineID, cmd driver.Command) (driver.Output, error) {
			l.Host.Start(ctx, id)
			return l.Host.Run(ctx, id, cmd)
		}
	},
	"StartGoesOnFromAPause": func(l *liar, _ *Bench) {
		l.start = func(ctx context.Context, id estate.MachineID) error {
			if all, _ := l.Host.List(ctx); len(all) == 1 && all[0].Power == estate.Paused {
				return nil // it runs, in a way
			}
			return l.Host.Start(ctx, id)
		}
	},
	"StartFromAPauseKeepsTheMemory": func(l *liar, _ *Bench) {
		l.around["Pause"] = func(func() error) error { l.PowerOff(first); return nil }
	},
	"StopOfAPausedMachinePowersOff": func(l *liar, _ *Bench) {
		l.stop = func(context.Context, estate.MachineID, time.Duration) error { return nil }
	},
	"PauseOfAMachineThatIsOffIsConflict": suppresses("Pause", fault.Conflict),
	"PauseUnknownIsNotFound":             suppresses("Pause", fault.NotFound),
}

// onlyOnce does it the first time and refuses after that.
func onlyOnce(method string, kind fault.Kind) lie {
	return func(l *liar, _ *Bench) {
		done := false
		l.around[method] = func(good func() error) error {
			if done {
				return kind.Errorf("it was done")
			}
			done = true
			return good()
		}
	}
}

// defines suppresses an error of one kind.
func defines(kind fault.Kind) lie {
	return func(l *liar, _ *Bench) {
		l.define = func(ctx context.Context, def driver.Definition) error {
			if err := l.Host.Define(ctx, def); !errors.Is(err, kind) {
				return err
			}
			return nil
		}
	}
}

// bootsCold has clones begin anew.
func bootsCold(l *liar, _ *Bench) {
	l.define = func(ctx context.Context, def driver.Definition) error {
		def.Template = ""
		return l.Host.Define(ctx, def)
	}
}

// spoilsTheTemplate has what is written to the second machine's disk reach
// whoever is defined later.
func spoilsTheTemplate(l *liar, _ *Bench) {
	var wrote []byte
	l.imports = func(ctx context.Context, id estate.MachineID, disk string, r io.Reader) error {
		data, err := io.ReadAll(r)
		if id == second {
			wrote = data
		}
		return errors.Join(err, l.Host.Import(ctx, id, disk, reader(data)))
	}
	l.define = func(ctx context.Context, def driver.Definition) error {
		err := l.Host.Define(ctx, def)
		if def.ID == first && wrote != nil {
			err = errors.Join(err, l.Host.Import(ctx, first, "data", reader(wrote)))
		}
		return err
	}
}

func (l *liar) Freeze(ctx context.Context, id estate.MachineID, name string) error {
	return l.do("Freeze", func() error { return l.Host.Freeze(ctx, id, name) })
}

func (l *liar) Templates(ctx context.Context) ([]driver.Template, error) {
	all, err := l.Host.Templates(ctx)
	if l.templates != nil {
		all = l.templates(all)
	}
	return all, err
}

func (l *liar) DropTemplate(ctx context.Context, name string) error {
	return l.do("DropTemplate", func() error { return l.Host.DropTemplate(ctx, name) })
}

func (l *liar) Join(ctx context.Context, id estate.MachineID) error {
	return l.do("Join", func() error { return l.Host.Join(ctx, id) })
}

func (l *liar) Pause(ctx context.Context, id estate.MachineID) error {
	return l.do("Pause", func() error { return l.Host.Pause(ctx, id) })
}
