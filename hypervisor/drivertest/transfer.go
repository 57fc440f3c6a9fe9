package drivertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// transfers are promises of driver.Transferer.
var transfers = []promise{
	{name: "ExportIsTheWholeDisk", needs: estate.CanTransfer, keeps: exportIsTheWholeDisk},
	{name: "ACopyBeginsAsItsBase", needs: estate.CanTransfer, keeps: copyBeginsAsBase},
	{name: "ExportOfARunningMachineIsConflict", asks: true, needs: estate.CanTransfer, keeps: exportRunningIsConflict},
	{name: "ImportOfARunningMachineIsConflict", asks: true, needs: estate.CanTransfer, keeps: importRunningIsConflict},
	{name: "ImportReplaces", needs: estate.CanTransfer, keeps: importReplaces},
	{name: "ImportReplacesAVolume", needs: estate.CanTransfer, keeps: importReplacesAVolume},
	{name: "ImportOfTooLittleIsRefused", needs: estate.CanTransfer, keeps: importShortIsRefused},
	{name: "ImportOfTooMuchIsRefused", needs: estate.CanTransfer, keeps: importLongIsRefused},
	{name: "ABrokenImportLeavesTheOld", needs: estate.CanTransfer, keeps: brokenImportLeavesTheOld},
	{name: "TransferOfAnUnknownDiskIsNotFound", needs: estate.CanTransfer, keeps: transferUnknownIsNotFound},
	{name: "AnEmptyDiskIsZeros", needs: estate.CanTransfer, keeps: emptyDiskIsZeros},

	{name: "ShelvedIsNotListed", needs: estate.CanTransfer, keeps: shelvedIsNotListed},
	{name: "StartOfAShelvedIsNotFound", needs: estate.CanTransfer, keeps: startShelvedIsNotFound},
	{name: "ShelvedComesBackWithItsDisks", needs: estate.CanTransfer, keeps: shelvedComesBack},
	{name: "ShelvedComesBackToANewProcess", needs: estate.CanTransfer, keeps: shelvedOutlivesTheProcess},
	{name: "DefineUnequalToAShelvedIsExists", needs: estate.CanTransfer, keeps: defineUnequalToShelvedIsExists},
	{name: "DeleteRemovesAShelved", needs: estate.CanTransfer, keeps: deleteRemovesAShelved},
	{name: "ShelveOfARunningMachineIsConflict", asks: true, needs: estate.CanTransfer, keeps: shelveRunningIsConflict},
	{name: "ShelveTwiceIsOnce", needs: estate.CanTransfer, keeps: shelveTwiceIsOnce},
	{name: "ShelveUnknownIsSuccess", asks: true, needs: estate.CanTransfer, keeps: shelveUnknownIsSuccess},
}

// size is that of the first machine's disk.
func (b Bench) size() int { return int(b.def(first).Disks[0].Size) }

func (b Bench) export(ctx context.Context, disk string) ([]byte, error) {
	t, err := ability[driver.Transferer](b)
	if err != nil {
		return nil, err
	}
	var got bytes.Buffer
	err = t.Export(ctx, first, disk, &got)
	return got.Bytes(), err
}

func (b Bench) imports(ctx context.Context, disk string, r io.Reader) func() error {
	return func() error {
		t, err := ability[driver.Transferer](b)
		if err != nil {
			return err
		}
		return t.Import(ctx, first, disk, r)
	}
}

// content checks what a disk holds.
func (b Bench) content(ctx context.Context, disk string, want []byte) func() error {
	return func() error {
		got, err := b.export(ctx, disk)
		if err == nil && !bytes.Equal(got, want) {
			err = fmt.Errorf("disk %s holds %d bytes unequal to the %d wanted", disk, len(got), len(want))
		}
		return err
	}
}

// pattern is content with holes, that no two places share.
func pattern(size int) []byte {
	data := make([]byte, size)
	for i := 0; i < size; i += 512 {
		if i/65536%3 != 1 {
			copy(data[i:], fmt.Sprintf("sector %d", i/512))
		}
	}
	return data
}

func exportIsTheWholeDisk(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), func() error {
		got, err := b.export(ctx, "root")
		if err == nil && len(got) != b.size() {
			err = fmt.Errorf("Export wrote %d bytes, want %d", len(got), b.size())
		}
		return err
	})
}

func copyBeginsAsBase(ctx context.Context, b Bench) error {
	if b.Raw == nil {
		return skip("it is not known what the base holds")
	}
	want := make([]byte, b.size())
	copy(want, b.Raw)
	return steps(b.define(ctx, first), b.content(ctx, "root", want))
}

func exportRunningIsConflict(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.start(ctx, first), func() error {
		_, err := b.export(ctx, "root")
		return isKind(err, fault.Conflict)
	})
}

func importRunningIsConflict(ctx context.Context, b Bench) error {
	data := bytes.NewReader(pattern(b.size()))
	return steps(b.define(ctx, first), b.start(ctx, first), func() error {
		return isKind(b.imports(ctx, "root", data)(), fault.Conflict)
	})
}

// Twice, since the second replaces an import and not a copy.
func importReplaces(ctx context.Context, b Bench) error {
	zero, data := make([]byte, b.size()), pattern(b.size())
	return steps(b.define(ctx, first),
		b.imports(ctx, "root", bytes.NewReader(zero)), b.content(ctx, "root", zero),
		b.imports(ctx, "root", bytes.NewReader(data)), b.content(ctx, "root", data),
		b.start(ctx, first))
}

func importReplacesAVolume(ctx context.Context, b Bench) error {
	c, err := b.file("home.img", 'h')
	if err != nil {
		return err
	}
	def := b.def(first)
	def.Disks = append(def.Disks, driver.Disk{Name: "home", File: &c})
	data := pattern(int(c.Size))
	return steps(func() error { return b.Host.Define(ctx, def) },
		b.imports(ctx, "home", bytes.NewReader(data)), b.content(ctx, "home", data))
}

func importShortIsRefused(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), func() error {
		return isKind(b.imports(ctx, "root", bytes.NewReader(make([]byte, b.size()-1)))(), fault.Invalid)
	})
}

func importLongIsRefused(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), func() error {
		return isKind(b.imports(ctx, "root", bytes.NewReader(make([]byte, b.size()+1)))(), fault.Invalid)
	})
}

func brokenImportLeavesTheOld(ctx context.Context, b Bench) error {
	old := pattern(b.size())
	broken := io.MultiReader(strings.NewReader(strings.Repeat("n", b.size()/2)), failing{})
	return steps(b.define(ctx, first), b.imports(ctx, "root", bytes.NewReader(old)), func() error {
		if err := b.imports(ctx, "root", broken)(); err == nil {
			return errors.New("a broken import is a success")
		}
		return nil
	}, b.content(ctx, "root", old))
}

func transferUnknownIsNotFound(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), func() error {
		_, err := b.export(ctx, "absent")
		return isKind(err, fault.NotFound)
	}, func() error { return isKind(b.imports(ctx, "absent", strings.NewReader(""))(), fault.NotFound) })
}

// failing is a source that breaks.
type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("the source broke") }

func emptyDiskIsZeros(ctx context.Context, b Bench) error {
	def := b.def(first)
	def.Disks[0] = driver.Disk{Name: "root", Size: diskSize}
	return steps(func() error { return b.Host.Define(ctx, def) }, b.content(ctx, "root", make([]byte, diskSize)))
}

func (b Bench) shelve(ctx context.Context, id estate.MachineID) func() error {
	return func() error {
		t, err := ability[driver.Transferer](b)
		if err == nil {
			err = t.Shelve(ctx, id)
		}
		return err
	}
}

// fill has the first machine's own disk hold a pattern.
func (b Bench) fill(ctx context.Context, disk string, salt byte) func() error {
	return func() error { return b.imports(ctx, disk, bytes.NewReader(b.pattern(salt)))() }
}

// filled checks that the disk holds the pattern.
func (b Bench) filled(ctx context.Context, disk string, salt byte) func() error {
	return b.content(ctx, disk, b.pattern(salt))
}

// pattern is content as large as the first machine's disk, another one for
// every salt.
func (b Bench) pattern(salt byte) []byte {
	data := pattern(b.size())
	data[len(data)-1] = salt
	return data
}

func shelvedIsNotListed(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.define(ctx, second), b.shelve(ctx, first), b.holds(ctx, second))
}

func startShelvedIsNotFound(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.shelve(ctx, first),
		func() error { return isKind(b.Host.Start(ctx, first), fault.NotFound) })
}

func shelvedComesBack(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.fill(ctx, "root", 's'), b.shelve(ctx, first),
		b.define(ctx, first), b.filled(ctx, "root", 's'))
}

func shelvedOutlivesTheProcess(ctx context.Context, b Bench) error {
	if err := steps(b.define(ctx, first), b.fill(ctx, "root", 's'), b.shelve(ctx, first)); err != nil {
		return err
	}
	h, err := b.Reopen()
	b.Host = h
	return steps(func() error { return err }, b.define(ctx, first), b.filled(ctx, "root", 's'))
}

func defineUnequalToShelvedIsExists(ctx context.Context, b Bench) error {
	other := b.def(first)
	other.CPUs++
	return steps(b.define(ctx, first), b.shelve(ctx, first),
		func() error { return isKind(b.Host.Define(ctx, other), fault.Exists) })
}

func deleteRemovesAShelved(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.fill(ctx, "root", 's'), b.shelve(ctx, first), b.remove(ctx, first),
		b.define(ctx, first), func() error {
			got, err := b.export(ctx, "root")
			if err == nil && bytes.Equal(got, b.pattern('s')) {
				err = errors.New("the disk of a deleted machine came back")
			}
			return err
		})
}

func shelveRunningIsConflict(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.start(ctx, first),
		func() error { return isKind(b.shelve(ctx, first)(), fault.Conflict) })
}

func shelveTwiceIsOnce(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.shelve(ctx, first), b.shelve(ctx, first))
}

func shelveUnknownIsSuccess(ctx context.Context, b Bench) error { return b.shelve(ctx, nobody)() }
