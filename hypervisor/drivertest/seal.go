package drivertest

import (
	"context"
	"fmt"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// seals are promises of driver.Sealer. That nothing can be read of what a sealed
// machine wrote, and that it ends with us, is for each provider's own tests.
var seals = []promise{
	{name: "SealedIsDefinedAsItWasAsked", needs: estate.CanEncryptDisk, keeps: sealedIsDefined},
	{name: "SealedHasItsKeyUntilItStarts", needs: estate.CanEncryptDisk, keeps: sealedHasItsKey},
	{name: "SealedHasItsKeyWhileItRuns", needs: estate.CanEncryptDisk, keeps: sealedRunsWithItsKey},
	{name: "SealedHasNoKeyOnceItIsOff", needs: estate.CanEncryptDisk, keeps: sealedLosesItsKey},
	{name: "SealedThatIsOffDoesNotStart", needs: estate.CanEncryptDisk, keeps: sealedStartsOnce},
	{name: "SealedHaveKeysOfTheirOwn", needs: estate.CanEncryptDisk, keeps: sealedHaveOwnKeys},
	{name: "SealedMadeAnewHasAnotherKey", needs: estate.CanEncryptDisk, keeps: sealedAnewHasAnotherKey},
	{name: "SealedCloneGoesOn", needs: estate.CanEncryptDisk, with: []estate.Capability{estate.CanInstant}, keeps: sealedCloneGoesOn},
	{name: "KeyOfAnOpenMachineIsInvalid", needs: estate.CanEncryptDisk, keeps: keyOfOpenIsInvalid},
	{name: "KeyUnknownIsNotFound", asks: true, needs: estate.CanEncryptDisk, keeps: keyUnknownIsNotFound},
}

// seal makes a sealed machine.
func (b Bench) seal(ctx context.Context, id estate.MachineID) func() error {
	return func() error {
		def := b.def(id)
		def.Sealed = true
		return b.Host.Define(ctx, def)
	}
}

// key checks whether the machine's key is held, and notes its name.
func (b Bench) key(ctx context.Context, id estate.MachineID, held bool, name *string) func() error {
	return func() error {
		s, err := ability[driver.Sealer](b)
		if err != nil {
			return err
		}
		k, err := s.Key(ctx, id)
		if err == nil && (k.Held != held || k.ID == "") {
			err = fmt.Errorf("key %q of machine %s is held: %v, want %v", k.ID, id, k.Held, held)
		}
		*name = k.ID
		return err
	}
}

func same(a, b *string, want bool) func() error {
	return func() error {
		if (*a == *b) != want {
			return fmt.Errorf("keys are named %q and %q, the same: want %v", *a, *b, want)
		}
		return nil
	}
}

func sealedIsDefined(ctx context.Context, b Bench) error {
	return steps(b.seal(ctx, first), func() error {
		all, err := b.Host.List(ctx)
		if err == nil && (len(all) != 1 || !all[0].Def.Sealed) {
			err = fmt.Errorf("List = %+v, want one that is sealed", all)
		}
		return err
	})
}

func sealedHasItsKey(ctx context.Context, b Bench) error {
	var name string
	return steps(b.seal(ctx, first), b.key(ctx, first, true, &name))
}

func sealedRunsWithItsKey(ctx context.Context, b Bench) error {
	var before, after string
	return steps(b.seal(ctx, first), b.key(ctx, first, true, &before), b.start(ctx, first), b.key(ctx, first, true, &after), same(&before, &after, true))
}

func sealedLosesItsKey(ctx context.Context, b Bench) error {
	var name string
	return steps(b.seal(ctx, first), b.start(ctx, first), b.stop(ctx, first, 0), b.key(ctx, first, false, &name))
}

func sealedStartsOnce(ctx context.Context, b Bench) error {
	return steps(b.seal(ctx, first), b.start(ctx, first), b.stop(ctx, first, 0),
		func() error { return isKind(b.start(ctx, first)(), fault.Conflict) })
}

func sealedHaveOwnKeys(ctx context.Context, b Bench) error {
	var one, two string
	return steps(b.seal(ctx, first), b.seal(ctx, second), b.key(ctx, first, true, &one), b.key(ctx, second, true, &two), same(&one, &two, false))
}

func sealedAnewHasAnotherKey(ctx context.Context, b Bench) error {
	var one, two string
	return steps(b.seal(ctx, first), b.key(ctx, first, true, &one), b.remove(ctx, first), b.seal(ctx, first), b.key(ctx, first, true, &two), same(&one, &two, false))
}

func sealedCloneGoesOn(ctx context.Context, b Bench) error {
	return steps(b.template(ctx, "a"), func() error {
		def := b.cloneDef(first, "a")
		def.Sealed = true
		return b.Host.Define(ctx, def)
	}, b.start(ctx, first), b.is(ctx, first, estate.On, 1))
}

func keyOfOpenIsInvalid(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), func() error {
		s, err := ability[driver.Sealer](b)
		if err == nil {
			_, err = s.Key(ctx, first)
		}
		return isKind(err, fault.Invalid)
	})
}

func keyUnknownIsNotFound(ctx context.Context, b Bench) error {
	s, err := ability[driver.Sealer](b)
	if err == nil {
		_, err = s.Key(ctx, nobody)
	}
	return isKind(err, fault.NotFound)
}
