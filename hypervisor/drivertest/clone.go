package drivertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// freezes are promises of driver.Cloner about templates.
var freezes = []promise{
	{name: "FreezeMakesATemplate", needs: estate.CanInstant, keeps: freezeMakesATemplate},
	{name: "FreezeTakesItFromTheMachines", needs: estate.CanInstant, keeps: freezeTakesTheMachine},
	{name: "FreezeAgainIsSuccess", needs: estate.CanInstant, keeps: freezeAgainIsSuccess},
	{name: "FreezeUnderATakenNameIsExists", needs: estate.CanInstant, keeps: freezeTakenIsExists},
	{name: "FreezeThatFailsLeavesTheMachineRunning", needs: estate.CanInstant, keeps: freezeFailedRuns},
	{name: "FreezeOfAMachineThatIsOffIsConflict", needs: estate.CanInstant, keeps: freezeOffIsConflict},
	{name: "FreezeUnknownIsNotFound", asks: true, needs: estate.CanInstant, keeps: freezeUnknownIsNotFound},
	{name: "FreezeWithAFileIsInvalid", needs: estate.CanInstant, keeps: freezeFileIsInvalid},
	{name: "TemplatesAreSorted", needs: estate.CanInstant, keeps: templatesAreSorted},
	{name: "TemplatesOutliveTheProcess", needs: estate.CanInstant, with: outlives, keeps: templatesOutlive},
	{name: "DropTemplateForgetsIt", needs: estate.CanInstant, keeps: dropTemplateForgets},
	{name: "DropTemplateLeavesTheOthers", needs: estate.CanInstant, keeps: dropTemplateLeavesOthers},
	{name: "DropTemplateKeepsRunningClones", needs: estate.CanInstant, keeps: dropKeepsRunning},
	{name: "DropTemplateKeepsDisksOfClones", needs: estate.CanInstant, with: transfer, keeps: dropKeepsDisks},
	{name: "DropTemplateKeepsClonesThatHaveNotBegun", os: true, needs: estate.CanInstant, with: guest, keeps: dropKeepsUnbegun},
	{name: "DropTemplateOfAnUnknownNameIsSuccess", asks: true, needs: estate.CanInstant, keeps: dropUnknownIsSuccess},
	{name: "DefineFromAnUnknownTemplateIsNotFound", asks: true, needs: estate.CanInstant, keeps: defineUnknownTemplateIsNotFound},
	{name: "DefineFromATemplateOfOtherHardwareIsInvalid", needs: estate.CanInstant, keeps: defineOtherHardwareIsInvalid},
}

// outlives is what it takes to find again what an earlier process left.
var outlives = []estate.Capability{estate.CanOutliveUs}

// template makes a template of the third machine.
func (b Bench) template(ctx context.Context, name string) func() error {
	return func() error {
		up := func() error { return nil }
		if b.OS {
			up = b.booted(ctx, third)
		}
		return steps(b.define(ctx, third), b.start(ctx, third), up, b.freeze(ctx, third, name))
	}
}

func (b Bench) freeze(ctx context.Context, id estate.MachineID, name string) func() error {
	return func() error {
		c, err := ability[driver.Cloner](b)
		if err == nil {
			err = c.Freeze(ctx, id, name)
		}
		return err
	}
}

func (b Bench) forget(ctx context.Context, name string) func() error {
	return func() error {
		c, err := ability[driver.Cloner](b)
		if err == nil {
			err = c.DropTemplate(ctx, name)
		}
		return err
	}
}

// templates checks the names of all templates.
func (b Bench) templates(ctx context.Context, want ...string) func() error {
	return func() error {
		c, err := ability[driver.Cloner](b)
		if err != nil {
			return err
		}
		all, err := c.Templates(ctx)
		var got []string
		for _, t := range all {
			got = append(got, t.Name)
		}
		if err == nil && !slices.Equal(got, want) {
			err = fmt.Errorf("Templates = %q, want %q", got, want)
		}
		return err
	}
}

// cloneDef is the definition of a clone of the third machine.
func (b Bench) cloneDef(id estate.MachineID, template string) driver.Definition {
	def := b.def(id)
	def.Name, def.Template = "clone of it", template
	return def
}

func (b Bench) clone(ctx context.Context, id estate.MachineID, template string) func() error {
	return func() error { return b.Host.Define(ctx, b.cloneDef(id, template)) }
}

func freezeMakesATemplate(ctx context.Context, b Bench) error {
	return steps(b.template(ctx, "a"), b.templates(ctx, "a"), func() error {
		c, err := ability[driver.Cloner](b)
		if err != nil {
			return err
		}
		all, err := c.Templates(ctx)
		if err == nil && (len(all) != 1 || !all[0].Def.Equal(b.def(third)) || all[0].Stale != "") {
			err = fmt.Errorf("Templates = %+v, want one of %+v", all, b.def(third))
		}
		return err
	})
}

func freezeTakesTheMachine(ctx context.Context, b Bench) error {
	return steps(b.template(ctx, "a"), b.holds(ctx))
}

func freezeAgainIsSuccess(ctx context.Context, b Bench) error {
	return steps(b.template(ctx, "a"), b.freeze(ctx, third, "a"))
}

func freezeTakenIsExists(ctx context.Context, b Bench) error {
	return steps(b.template(ctx, "a"), b.define(ctx, first), b.start(ctx, first),
		func() error { return isKind(b.freeze(ctx, first, "a")(), fault.Exists) })
}

func freezeFailedRuns(ctx context.Context, b Bench) error {
	return steps(b.template(ctx, "a"), b.define(ctx, first), b.start(ctx, first), func() error {
		if b.freeze(ctx, first, "a")() == nil {
			return errors.New("two machines became one template")
		}
		return nil
	}, b.is(ctx, first, estate.On, 1))
}

func freezeOffIsConflict(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), func() error { return isKind(b.freeze(ctx, first, "a")(), fault.Conflict) })
}

func freezeUnknownIsNotFound(ctx context.Context, b Bench) error {
	return isKind(b.freeze(ctx, nobody, "a")(), fault.NotFound)
}

func freezeFileIsInvalid(ctx context.Context, b Bench) error {
	def := b.def(first)
	c, err := b.file("home.img", 'h')
	if err != nil {
		return err
	}
	def.Disks = append(def.Disks, driver.Disk{Name: "home", File: &c})
	return steps(func() error { return b.Host.Define(ctx, def) }, b.start(ctx, first),
		func() error { return isKind(b.freeze(ctx, first, "a")(), fault.Invalid) })
}

func templatesAreSorted(ctx context.Context, b Bench) error {
	return steps(b.template(ctx, "b"), b.template(ctx, "a"), b.template(ctx, "c"), b.templates(ctx, "a", "b", "c"))
}

func templatesOutlive(ctx context.Context, b Bench) error {
	if b.Reopen == nil {
		return skip("the bench cannot open the host again")
	}
	if err := b.template(ctx, "a")(); err != nil {
		return err
	}
	again, err := b.Reopen()
	if err != nil {
		return err
	}
	b.Host = again
	return steps(b.templates(ctx, "a"), b.clone(ctx, first, "a"), b.start(ctx, first), b.is(ctx, first, estate.On, 1))
}

func dropTemplateForgets(ctx context.Context, b Bench) error {
	return steps(b.template(ctx, "a"), b.forget(ctx, "a"), b.templates(ctx))
}

func dropTemplateLeavesOthers(ctx context.Context, b Bench) error {
	return steps(b.template(ctx, "a"), b.template(ctx, "b"), b.forget(ctx, "a"), b.templates(ctx, "b"))
}

func dropKeepsRunning(ctx context.Context, b Bench) error {
	return steps(b.template(ctx, "a"), b.clone(ctx, first, "a"), b.start(ctx, first), b.forget(ctx, "a"),
		b.is(ctx, first, estate.On, 1))
}

func dropKeepsDisks(ctx context.Context, b Bench) error {
	return steps(b.marked(ctx, "a"), b.twoDisks(ctx, first), b.forget(ctx, "a"), b.content(ctx, "data", pattern(int(diskSize))))
}

func dropKeepsUnbegun(ctx context.Context, b Bench) error {
	return b.goesOn(ctx, b.forget(ctx, "a"))
}

func dropUnknownIsSuccess(ctx context.Context, b Bench) error { return b.forget(ctx, "c")() }

func defineUnknownTemplateIsNotFound(ctx context.Context, b Bench) error {
	return isKind(b.clone(ctx, second, "c")(), fault.NotFound)
}

func defineOtherHardwareIsInvalid(ctx context.Context, b Bench) error {
	return steps(b.template(ctx, "a"), func() error {
		def := b.cloneDef(first, "a")
		def.Memory *= 2
		return isKind(b.Host.Define(ctx, def), fault.Invalid)
	})
}

// clones are promises about machines that go on from a template.
var clones = []promise{
	{name: "CloneIsDefinedAsItWasAsked", needs: estate.CanInstant, keeps: cloneIsDefined},
	{name: "CloneStartsOnce", needs: estate.CanInstant, keeps: cloneStartsOnce},
	{name: "CloneGoesOn", os: true, needs: estate.CanInstant, with: guest, keeps: func(ctx context.Context, b Bench) error { return b.goesOn(ctx) }},
	{name: "CloneThatStartsAgainBoots", os: true, needs: estate.CanInstant, with: guest, keeps: cloneAgainBoots},
	{name: "CloneBootsAfterAnImport", os: true, needs: estate.CanInstant, with: slices.Concat(guest, transfer), keeps: cloneBootsAfterImport},
	{name: "CloneBeginsWithTheTemplatesDisks", needs: estate.CanInstant, with: transfer, keeps: cloneBeginsWithTheDisks},
	{name: "ClonesAreApartOnDisk", needs: estate.CanInstant, with: transfer, keeps: clonesAreApart},
	{name: "CloneLeavesTheTemplate", needs: estate.CanInstant, with: transfer, keeps: cloneLeavesTheTemplate},
	{name: "CloneKeepsItsDisksWhenSnapshotsGo", needs: estate.CanInstant, with: slices.Concat(transfer, []estate.Capability{estate.CanSnapshot}), keeps: cloneSnapshotsLeaveTheTemplate},
	{name: "CloneHasWhatWasAttached", needs: estate.CanInstant, with: []estate.Capability{estate.CanHotplug}, keeps: cloneHasWhatWasAttached},
	{name: "TwoClonesRunAtOnce", needs: estate.CanInstant, keeps: twoClonesRun},
	{name: "DeletedCloneLeavesTheOthers", needs: estate.CanInstant, with: transfer, keeps: deletedCloneLeavesOthers},
}

// marked makes a template whose disk data holds the pattern.
func (b Bench) marked(ctx context.Context, name string) func() error {
	return func() error {
		t, err := ability[driver.Transferer](b)
		if err != nil {
			return err
		}
		return steps(func() error { return b.Host.Define(ctx, b.two(third, "")) },
			func() error { return t.Import(ctx, third, "data", reader(pattern(int(diskSize)))) },
			b.start(ctx, third), b.freeze(ctx, third, name))
	}
}

// two is a machine with a second disk, data.
func (b Bench) two(id estate.MachineID, template string) driver.Definition {
	def := b.cloneDef(id, template)
	def.Disks = append(def.Disks, driver.Disk{Name: "data", Size: diskSize})
	return def
}

func (b Bench) twoDisks(ctx context.Context, id estate.MachineID) func() error {
	return func() error { return b.Host.Define(ctx, b.two(id, "a")) }
}

func cloneIsDefined(ctx context.Context, b Bench) error {
	want := b.cloneDef(first, "a")
	return steps(b.template(ctx, "a"), b.clone(ctx, first, "a"), b.start(ctx, first), func() error {
		all, err := b.Host.List(ctx)
		if err == nil && (len(all) != 1 || all[0].ID != first || !all[0].Def.Equal(want)) {
			err = fmt.Errorf("List = %+v, want one machine of %+v", all, want)
		}
		return err
	})
}

func cloneStartsOnce(ctx context.Context, b Bench) error {
	return steps(b.template(ctx, "a"), b.clone(ctx, first, "a"), b.is(ctx, first, estate.Off, 0),
		b.start(ctx, first), b.start(ctx, first), b.is(ctx, first, estate.On, 1))
}

// fork makes template a and a clone of it, and returns the boot of the template's guest.
func (b Bench) fork(ctx context.Context) (boot string, err error) {
	if err := steps(b.define(ctx, first), b.start(ctx, first)); err != nil {
		return "", err
	}
	if boot, err = b.bootID(ctx, b.Host); err != nil {
		return "", err
	}
	// The clone has the template's ID, so that bootID asks it.
	return boot, steps(b.freeze(ctx, first, "a"), b.clone(ctx, first, "a"))
}

// goesOn checks that a clone goes on where the template was, after some steps.
func (b Bench) goesOn(ctx context.Context, meanwhile ...func() error) error {
	boot, err := b.fork(ctx)
	if err != nil {
		return err
	}
	if err := steps(append(meanwhile, b.start(ctx, first))...); err != nil {
		return err
	}
	now, err := b.bootID(ctx, b.Host)
	if err == nil && now != boot {
		err = errors.New("the clone began anew")
	}
	return err
}

// boots is goesOn for one that must not.
func (b Bench) boots(ctx context.Context, meanwhile ...func() error) error {
	boot, err := b.fork(ctx)
	if err != nil {
		return err
	}
	if err := steps(append(meanwhile, b.start(ctx, first))...); err != nil {
		return err
	}
	now, err := b.bootID(ctx, b.Host)
	if err == nil && now == boot {
		err = errors.New("the clone goes on with memory that its disks are not of")
	}
	return err
}

func cloneAgainBoots(ctx context.Context, b Bench) error {
	return b.boots(ctx, b.start(ctx, first), b.stop(ctx, first, 0))
}

func cloneBootsAfterImport(ctx context.Context, b Bench) error {
	return b.boots(ctx, func() error {
		held, err := b.export(ctx, "root")
		if err != nil {
			return err
		}
		return b.imports(ctx, "root", reader(held))()
	})
}

func cloneBeginsWithTheDisks(ctx context.Context, b Bench) error {
	return steps(b.marked(ctx, "a"), b.twoDisks(ctx, first), b.content(ctx, "data", pattern(int(diskSize))))
}

// written is what a clone's disk holds that was written to.
func written() []byte { return bytes.Repeat([]byte{'w'}, int(diskSize)) }

func (b Bench) importInto(ctx context.Context, id estate.MachineID, data []byte) func() error {
	return func() error {
		t, err := ability[driver.Transferer](b)
		if err == nil {
			err = t.Import(ctx, id, "data", reader(data))
		}
		return err
	}
}

func clonesAreApart(ctx context.Context, b Bench) error {
	return steps(b.marked(ctx, "a"), b.twoDisks(ctx, first), b.twoDisks(ctx, second),
		b.importInto(ctx, second, written()), b.content(ctx, "data", pattern(int(diskSize))))
}

func cloneLeavesTheTemplate(ctx context.Context, b Bench) error {
	return steps(b.marked(ctx, "a"), b.twoDisks(ctx, second), b.start(ctx, second), b.stop(ctx, second, 0),
		b.importInto(ctx, second, written()), b.remove(ctx, second), b.templates(ctx, "a"),
		b.twoDisks(ctx, first), b.content(ctx, "data", pattern(int(diskSize))))
}

// cloneSnapshotsLeaveTheTemplate has a clone keep and drop snapshots: what is
// folded together meanwhile must be its own.
func cloneSnapshotsLeaveTheTemplate(ctx context.Context, b Bench) error {
	s, err := ability[driver.Snapshotter](b)
	if err != nil {
		return err
	}
	return steps(b.marked(ctx, "a"), b.twoDisks(ctx, second),
		func() error { return s.Snapshot(ctx, second, "one") }, b.importInto(ctx, second, written()),
		func() error { return s.Snapshot(ctx, second, "two") }, func() error { return s.DropSnapshot(ctx, second, "one") },
		func() error { return s.DropSnapshot(ctx, second, "two") },
		b.twoDisks(ctx, first), b.content(ctx, "data", pattern(int(diskSize))))
}

func cloneHasWhatWasAttached(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.start(ctx, first), b.attach(ctx, "one"), b.freeze(ctx, first, "a"),
		b.clone(ctx, first, "a"), b.start(ctx, first), b.attached(ctx, "one"))
}

func twoClonesRun(ctx context.Context, b Bench) error {
	return steps(b.template(ctx, "a"), b.clone(ctx, first, "a"), b.clone(ctx, second, "a"), b.start(ctx, first),
		b.start(ctx, second), b.is(ctx, first, estate.On, 1), b.is(ctx, second, estate.On, 1))
}

func deletedCloneLeavesOthers(ctx context.Context, b Bench) error {
	return steps(b.marked(ctx, "a"), b.twoDisks(ctx, first), b.twoDisks(ctx, second), b.remove(ctx, second),
		b.content(ctx, "data", pattern(int(diskSize))))
}
