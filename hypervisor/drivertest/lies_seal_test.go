package drivertest

import (
	"context"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

var sealLies = map[string]lie{
	"SealedIsDefinedAsItWasAsked": func(l *liar, _ *Bench) {
		l.list = func(all []driver.Machine) []driver.Machine {
			for i := range all {
				all[i].Def.Sealed = false
			}
			return all
		}
	},
	"SealedHasItsKeyUntilItStarts": keys(func(k driver.Key) driver.Key { k.Held = false; return k }),
	"SealedHasItsKeyWhileItRuns": func(l *liar, _ *Bench) {
		n := 0
		l.key = func(k driver.Key) driver.Key {
			n++
			return driver.Key{ID: string(rune('a' + n)), Held: k.Held}
		}
	},
	"SealedHasNoKeyOnceItIsOff": keys(func(k driver.Key) driver.Key { k.Held = true; return k }),
	"SealedThatIsOffDoesNotStart": func(l *liar, _ *Bench) {
		l.start = func(ctx context.Context, id estate.MachineID) error {
			if err := l.Host.Start(ctx, id); fault.KindOf(err) != fault.Conflict {
				return err
			}
			return nil
		}
	},
	"SealedHaveKeysOfTheirOwn":    keys(func(k driver.Key) driver.Key { k.ID = "one for all"; return k }),
	"SealedMadeAnewHasAnotherKey": keys(func(k driver.Key) driver.Key { k.ID = "one for all"; return k }),
	"SealedCloneGoesOn":           defineRefusesSealedClones,
	"KeyOfAnOpenMachineIsInvalid": suppresses("Key", fault.Invalid),
	"KeyUnknownIsNotFound":        suppresses("Key", fault.NotFound),
}

// keys tells something else of a key.
func keys(spoil func(driver.Key) driver.Key) lie {
	return func(l *liar, _ *Bench) { l.key = spoil }
}

func defineRefusesSealedClones(l *liar, _ *Bench) {
	l.define = func(ctx context.Context, def driver.Definition) error {
		if def.Sealed && def.Template != "" {
			return fault.Unsupported.Errorf("no sealed clones")
		}
		return l.Host.Define(ctx, def)
	}
}

func (l *liar) Key(ctx context.Context, id estate.MachineID) (key driver.Key, err error) {
	err = l.do("Key", func() (err error) { key, err = l.Host.Key(ctx, id); return err })
	if err == nil && l.key != nil {
		key = l.key(key)
	}
	return key, err
}
