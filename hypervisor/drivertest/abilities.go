package drivertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing/iotest"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

func displayNamesItsProtocol(ctx context.Context, b Bench) error {
	d, err := b.Host.Describe(ctx)
	if err == nil && d.Can(estate.CanDisplay).Value == "" {
		err = errors.New("the display's protocol has no name")
	}
	return err
}

// greetings are the first bytes a server of a display protocol says, where it
// speaks first.
var greetings = map[string]string{"rfb": "RFB 003."}

// greet opens the display and reads what it says first.
func (b Bench) greet(ctx context.Context, id estate.MachineID) (io.ReadWriteCloser, error) {
	d, err := ability[driver.Displayer](b)
	if err != nil {
		return nil, err
	}
	desc, err := b.Host.Describe(ctx)
	if err != nil {
		return nil, err
	}
	conn, err := d.Display(ctx, id)
	if err != nil {
		return nil, err
	}
	want := greetings[desc.Can(estate.CanDisplay).Value]
	got := make([]byte, len(want))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != want {
		conn.Close()
		return nil, fmt.Errorf("the display says %q, %v; want %q", got, err, want)
	}
	return conn, nil
}

func displaySpeaks(ctx context.Context, b Bench) error {
	if err := steps(b.define(ctx, first), b.start(ctx, first)); err != nil {
		return err
	}
	conn, err := b.greet(ctx, first)
	if err == nil {
		err = conn.Close()
	}
	return err
}

func displaysAreTheirOwn(ctx context.Context, b Bench) error {
	if err := steps(b.define(ctx, first), b.start(ctx, first)); err != nil {
		return err
	}
	one, err := b.greet(ctx, first)
	if err != nil {
		return err
	}
	defer one.Close()
	two, err := b.greet(ctx, first)
	if err != nil {
		return err
	}
	return two.Close()
}

func displayOffIsConflict(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), func() error {
		_, err := b.greet(ctx, first)
		return isKind(err, fault.Conflict)
	})
}

func displayUnknownIsNotFound(ctx context.Context, b Bench) error {
	_, err := b.greet(ctx, nobody)
	return isKind(err, fault.NotFound)
}

// attached checks the names of the attached disks.
func (b Bench) attached(ctx context.Context, want ...string) func() error {
	return func() error {
		p, err := ability[driver.Hotplugger](b)
		if err != nil {
			return err
		}
		got, err := p.Attached(ctx, first)
		if err == nil && !slices.Equal(got, want) {
			err = fmt.Errorf("Attached = %q, want %q", got, want)
		}
		return err
	}
}

func (b Bench) attach(ctx context.Context, name string) func() error {
	return func() error {
		p, err := ability[driver.Hotplugger](b)
		if err != nil {
			return err
		}
		d, err := b.extra(name)
		if err != nil {
			return err
		}
		return p.Attach(ctx, first, d)
	}
}

func (b Bench) detach(ctx context.Context, name string) func() error {
	return func() error {
		p, err := ability[driver.Hotplugger](b)
		if err != nil {
			return err
		}
		return p.Detach(ctx, first, name)
	}
}

func attachShows(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.start(ctx, first), b.attach(ctx, "one"), b.attached(ctx, "one"))
}

func attachedIsSorted(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.start(ctx, first),
		b.attach(ctx, "b"), b.attach(ctx, "a"), b.attach(ctx, "c"), b.attached(ctx, "a", "b", "c"))
}

func attachTwiceIsOnce(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.start(ctx, first),
		b.attach(ctx, "one"), b.attach(ctx, "one"), b.attached(ctx, "one"))
}

func attachAnotherIsExists(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.start(ctx, first), b.attach(ctx, "one"), func() error {
		p, err := ability[driver.Hotplugger](b)
		if err != nil {
			return err
		}
		other, err := b.extra("other")
		if err != nil {
			return err
		}
		other.Name = "one"
		return isKind(p.Attach(ctx, first, other), fault.Exists)
	})
}

func attachDefinedIsExists(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.start(ctx, first),
		func() error { return isKind(b.attach(ctx, "root")(), fault.Exists) })
}

func attachOffIsConflict(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), func() error { return isKind(b.attach(ctx, "one")(), fault.Conflict) })
}

func attachUnknownIsNotFound(ctx context.Context, b Bench) error {
	return isKind(b.attach(ctx, "one")(), fault.NotFound)
}

// manySlots is more than any host has for disks that come and go.
const manySlots = 64

func attachFullIsNoCapacity(ctx context.Context, b Bench) error {
	if err := steps(b.define(ctx, first), b.start(ctx, first)); err != nil {
		return err
	}
	for i := range manySlots {
		if err := b.attach(ctx, fmt.Sprintf("d%d", i))(); err != nil {
			return isKind(err, fault.NoCapacity)
		}
	}
	return fmt.Errorf("%d disks were attached", manySlots)
}

func attachedGoesWithThePower(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.start(ctx, first), b.attach(ctx, "one"), b.stop(ctx, first, 0),
		b.attached(ctx), b.start(ctx, first), b.attached(ctx))
}

func detachTakesOut(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.start(ctx, first), b.booted(ctx, first),
		b.attach(ctx, "one"), b.detach(ctx, "one"), b.attached(ctx))
}

func detachLeavesTheOthers(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.start(ctx, first), b.booted(ctx, first),
		b.attach(ctx, "one"), b.attach(ctx, "two"), b.detach(ctx, "one"), b.attached(ctx, "two"))
}

func detachAbsentIsSuccess(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.start(ctx, first), b.detach(ctx, "absent"))
}

// booted waits until the guest's agent answers, where it can be asked.
func (b Bench) booted(ctx context.Context, id estate.MachineID) func() error {
	return func() error {
		g, ok := driver.As[driver.Guest](b.Host)
		if !ok {
			return nil
		}
		end := time.Now().Add(b.Boot + time.Second)
		for tick := time.NewTicker(100 * time.Millisecond); ; <-tick.C {
			out, err := g.Run(ctx, id, driver.Command{Args: []string{"true"}})
			if err == nil && out.Exit == 0 {
				tick.Stop()
				return nil
			}
			if time.Now().After(end) {
				tick.Stop()
				return fmt.Errorf("no guest agent within %v: %w", b.Boot, err)
			}
		}
	}
}

// run runs a command in a guest that is up.
func (b Bench) run(ctx context.Context, cmd driver.Command) (driver.Output, error) {
	if err := steps(b.define(ctx, first), b.start(ctx, first), b.booted(ctx, first)); err != nil {
		return driver.Output{}, err
	}
	g, err := ability[driver.Guest](b)
	if err != nil {
		return driver.Output{}, err
	}
	return g.Run(ctx, first, cmd)
}

func runReturnsTheOutput(ctx context.Context, b Bench) error {
	out, err := b.run(ctx, driver.Command{Args: []string{"echo", "two", "words"}})
	if err == nil && string(out.Stdout) != "two words\n" {
		err = fmt.Errorf("Run = %+v, want two words", out)
	}
	return err
}

func runPassesTheInput(ctx context.Context, b Bench) error {
	out, err := b.run(ctx, driver.Command{Args: []string{"cat"}, Stdin: []byte("a secret")})
	if err == nil && string(out.Stdout) != "a secret" {
		err = fmt.Errorf("Run = %+v, want the input", out)
	}
	return err
}

func runExitIsNoError(ctx context.Context, b Bench) error {
	out, err := b.run(ctx, driver.Command{Args: []string{"false"}})
	if err == nil && out.Exit != 1 {
		err = fmt.Errorf("Run = %+v, want exit 1", out)
	}
	return err
}

func runBoundsTheOutput(ctx context.Context, b Bench) error {
	out, err := b.run(ctx, driver.Command{Args: []string{"head", "-c", "2000000", "/dev/zero"}})
	if err == nil && len(out.Stdout) != 1<<20 {
		err = fmt.Errorf("Run returned %d bytes, want %d", len(out.Stdout), 1<<20)
	}
	return err
}

// A machine that is off has no agent that answers, whatever its base holds.
func runWithoutAgentIsUnavailable(ctx context.Context, b Bench) error {
	g, err := ability[driver.Guest](b)
	if err != nil {
		return err
	}
	return steps(b.define(ctx, first), func() error {
		_, err := g.Run(ctx, first, driver.Command{Args: []string{"true"}})
		return isKind(err, fault.Unavailable)
	}, func() error {
		if b.OS {
			return nil
		}
		if err := b.Host.Start(ctx, first); err != nil {
			return err
		}
		_, err := g.Run(ctx, first, driver.Command{Args: []string{"true"}})
		return isKind(err, fault.Unavailable)
	})
}

func runUnknownIsNotFound(ctx context.Context, b Bench) error {
	g, err := ability[driver.Guest](b)
	if err != nil {
		return err
	}
	_, err = g.Run(ctx, nobody, driver.Command{Args: []string{"true"}})
	return isKind(err, fault.NotFound)
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
		return nil
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
	broken := io.MultiReader(strings.NewReader(strings.Repeat("n", b.size()/2)), iotest.ErrReader(os.ErrClosed))
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
