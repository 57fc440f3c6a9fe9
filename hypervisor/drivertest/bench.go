package drivertest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// Bench is a host on trial and what the suite may use on it. What may be nil
// or empty makes promises that need it be skipped, by name.
type Bench struct {
	Host driver.Host

	// Base boots on the host. Where Raw is set, it is what Base holds.
	Base driver.Content
	Raw  []byte

	// Dir is where the suite puts disk files that the host can open. Write and
	// Read reach them, and Base; they are those of package os when nil, which is
	// right where the suite runs on the host.
	Dir   string
	Write func(path string, data []byte) error
	Read  func(path string) ([]byte, error)

	// GuestType is the type of guest on trial; the usual one when empty.
	GuestType string

	// Simulated says that the host is not the vendor's: what it shows proves our
	// side only.
	Simulated bool

	// OS says that Base holds an operating system: a guest agent answers, it
	// goes when asked to, and it lets go of disks.
	OS bool

	// Boot is how long a guest may take until its agent answers.
	Boot time.Duration

	// Memory of a machine; 32Mi when zero.
	Memory estate.Bytes

	// Says is what Base writes to its console at boot, or when it is sent a
	// new line.
	Says string

	// Reopen returns the host as a new process would find it.
	Reopen func() (driver.Host, error)

	// NIC returns a network card that the host can join, of no other machine.
	NIC func() (driver.NIC, error)

	// Other is a second host, to and from which running machines move. It can
	// open Base too, and is empty. Where hosts are dear, Second opens it for the
	// promises that need it, which come last on a shared host.
	Other  driver.Host
	Second func() driver.Host

	// Stranger puts a machine on the host that is not ours, by the vendor's own
	// means, and returns its ID. Each call makes another one.
	Stranger func(ctx context.Context) (estate.MachineID, error)

	// Blind makes the host unable to learn the state of a machine, until see is
	// called.
	Blind func(ctx context.Context, id estate.MachineID) (see func(), err error)
}

// The machines of the suite. Their order is not that of definition.
const (
	first  = estate.MachineID("0a000000-0000-4000-8000-000000000001")
	second = estate.MachineID("5b000000-0000-4000-8000-000000000002")
	third  = estate.MachineID("c3000000-0000-4000-8000-000000000003")
	nobody = estate.MachineID("ffffffff-ffff-4fff-8fff-ffffffffffff")
)

// Scratch returns the IDs of the machines that the suite makes, and deletes.
func Scratch() []estate.MachineID { return []estate.MachineID{first, second, third} }

// diskSize is that of every disk the suite makes.
const diskSize = 2 * estate.MiB

// def returns the definition of a machine with one private disk.
func (b Bench) def(id estate.MachineID) driver.Definition {
	base := b.Base
	return driver.Definition{
		ID: id, Name: "trial", GuestType: b.GuestType, CPUs: 1, Memory: cmp.Or(b.Memory, 32*estate.MiB),
		Screen: estate.Screen{Width: 640, Height: 480},
		Disks:  []driver.Disk{{Name: "root", Base: &base, Size: max(diskSize, base.Size)}},
	}
}

// file writes a disk file filled with one byte.
func (b Bench) file(name string, fill byte) (driver.Content, error) {
	data := make([]byte, diskSize)
	for i := range data {
		data[i] = fill
	}
	c := driver.Content{Path: filepath.Join(b.Dir, name), Format: estate.Raw, Size: diskSize}
	return c, b.write(c.Path, data)
}

func (b Bench) write(path string, data []byte) error {
	if b.Write != nil {
		return b.Write(path, data)
	}
	return os.WriteFile(path, data, 0o600)
}

func (b Bench) read(path string) ([]byte, error) {
	if b.Read != nil {
		return b.Read(path)
	}
	return os.ReadFile(path)
}

// extra returns a disk to attach.
func (b Bench) extra(name string) (driver.Disk, error) {
	c, err := b.file(name+".img", 'x')
	return driver.Disk{Name: name, File: &c, ReadOnly: true}, err
}

// steps runs each until one fails.
func steps(each ...func() error) error {
	for i, step := range each {
		if err := step(); err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
	}
	return nil
}

func (b Bench) define(ctx context.Context, id estate.MachineID) func() error {
	return func() error { return b.Host.Define(ctx, b.def(id)) }
}

func (b Bench) start(ctx context.Context, id estate.MachineID) func() error {
	return func() error { return b.Host.Start(ctx, id) }
}

func (b Bench) stop(ctx context.Context, id estate.MachineID, grace time.Duration) func() error {
	return func() error { return b.Host.Stop(ctx, id, grace) }
}

func (b Bench) remove(ctx context.Context, id estate.MachineID) func() error {
	return func() error { return b.Host.Delete(ctx, id) }
}

// is checks that the machine is listed with this power and number of starts.
func (b Bench) is(ctx context.Context, id estate.MachineID, power estate.Power, starts int64) func() error {
	return func() error {
		all, err := b.Host.List(ctx)
		if err != nil {
			return err
		}
		for _, m := range all {
			if m.ID == id {
				if m.Power != power || m.Starts != starts {
					return fmt.Errorf("machine is %s after %d starts, want %s after %d", m.Power, m.Starts, power, starts)
				}
				return nil
			}
		}
		return fmt.Errorf("machine %s is not listed", id)
	}
}

// holds checks the IDs of all machines.
func (b Bench) holds(ctx context.Context, want ...estate.MachineID) func() error {
	return func() error {
		all, err := b.Host.List(ctx)
		if err != nil {
			return err
		}
		var got []estate.MachineID
		for _, m := range all {
			got = append(got, m.ID)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			return fmt.Errorf("List = %v, want %v", got, want)
		}
		return nil
	}
}

func isKind(err error, want fault.Kind) error {
	if !errors.Is(err, want) {
		return fmt.Errorf("error %v is %v, want %v", err, fault.KindOf(err), want)
	}
	return nil
}

// ability returns what the host's description promises it to be.
func ability[T any](b Bench) (T, error) {
	t, ok := driver.As[T](b.Host)
	if !ok {
		return t, fmt.Errorf("the host is no %v", reflect.TypeFor[T]())
	}
	return t, nil
}
