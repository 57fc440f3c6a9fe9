package drivertest

import (
	"bytes"
	"context"
	"errors"
	"io"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/hypervisor/fakehost"
)

var transferLies = map[string]lie{
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
	"AnEmptyDiskIsZeros": func(l *liar, _ *Bench) {
		l.export = func(_ context.Context, _ estate.MachineID, _ string, w io.Writer) error {
			_, err := w.Write(bytes.Repeat([]byte("left over"), int(diskSize))[:diskSize])
			return err
		}
	},
	"ShelvedIsNotListed": shelves(func(*liar) error { return nil }),
	"StartOfAShelvedIsNotFound": func(l *liar, _ *Bench) {
		l.start = func(ctx context.Context, id estate.MachineID) error {
			if err := l.Host.Start(ctx, id); !errors.Is(err, fault.NotFound) {
				return err
			}
			return nil
		}
	},
	"ShelvedComesBackWithItsDisks":    shelves(func(l *liar) error { return l.Host.Delete(context.Background(), first) }),
	"ShelvedComesBackToANewProcess":   forgetful,
	"DefineUnequalToAShelvedIsExists": shelves(func(l *liar) error { return l.Host.Delete(context.Background(), first) }),
	"DeleteRemovesAShelved": func(l *liar, _ *Bench) {
		l.remove = func(ctx context.Context, id estate.MachineID) error {
			if all, _ := l.Host.List(ctx); len(all) == 0 {
				return nil // nothing that is listed
			}
			return l.Host.Delete(ctx, id)
		}
	},
	"ShelveOfARunningMachineIsConflict": func(l *liar, _ *Bench) {
		l.around["Shelve"] = func(good func() error) error { l.PowerOff(first); return good() }
	},
	"ShelveTwiceIsOnce": func(l *liar, _ *Bench) {
		n := 0
		l.around["Shelve"] = func(good func() error) error {
			if n++; n > 1 {
				return fault.NotFound.Errorf("it is shelved")
			}
			return good()
		}
	},
	"ShelveUnknownIsSuccess": func(l *liar, _ *Bench) {
		l.around["Shelve"] = func(func() error) error { return fault.NotFound.Errorf("no such machine") }
	},
}

// shelves has the liar shelve otherwise.
func shelves(other func(*liar) error) lie {
	return func(l *liar, _ *Bench) {
		l.around["Shelve"] = func(func() error) error { return other(l) }
	}
}

// forgetful has a new process know nothing.
func forgetful(_ *liar, b *Bench) {
	b.Reopen = func() (driver.Host, error) { return fakehost.New(fakehost.Options{}), nil }
}

type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }
