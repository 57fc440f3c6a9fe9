package drivertest

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

var displayLies = map[string]lie{
	"DisplayNamesItsProtocol": func(l *liar, _ *Bench) {
		l.describe = func(d driver.Description) driver.Description {
			for i := range d.Capabilities {
				d.Capabilities[i].Value = ""
			}
			return d
		}
	},
	"DisplaySpeaksItsProtocol": func(l *liar, _ *Bench) {
		l.display = func(context.Context, estate.MachineID) (io.ReadWriteCloser, error) {
			return os.Open(os.DevNull)
		}
	},
	"DisplaysAreConnectionsOfTheirOwn": func(l *liar, _ *Bench) {
		var one io.ReadWriteCloser
		l.display = func(ctx context.Context, id estate.MachineID) (conn io.ReadWriteCloser, err error) {
			if one != nil {
				one.Close() // the newcomer throws out who looks
				return one, nil
			}
			one, err = l.Host.Display(ctx, id)
			return one, err
		}
	},
	"DisplayOfAMachineThatIsOffIsConflict": func(l *liar, _ *Bench) {
		l.display = func(ctx context.Context, id estate.MachineID) (io.ReadWriteCloser, error) {
			l.Host.Start(ctx, id)
			return l.Host.Display(ctx, id)
		}
	},
	"DisplayUnknownIsNotFound": func(l *liar, _ *Bench) {
		l.display = func(ctx context.Context, id estate.MachineID) (io.ReadWriteCloser, error) {
			conn, err := l.Host.Display(ctx, id)
			return conn, nameless(err)
		}
	},
}

var hotplugLies = map[string]lie{
	"AttachShows": func(l *liar, _ *Bench) {
		l.attach = func(context.Context, estate.MachineID, driver.Disk) error { return nil }
	},
	"AttachedIsSorted": func(l *liar, _ *Bench) {
		l.attached = func(names []string) []string { slices.Reverse(names); return names }
	},
	"AttachTwiceIsOnce": func(l *liar, _ *Bench) {
		l.attach = func(ctx context.Context, id estate.MachineID, d driver.Disk) error {
			if names, _ := l.Host.Attached(ctx, id); slices.Contains(names, d.Name) {
				return fault.Exists.Errorf("disk %s is attached", d.Name)
			}
			return l.Host.Attach(ctx, id, d)
		}
	},
	"AttachAnotherIsExists": func(l *liar, _ *Bench) {
		l.attach = func(ctx context.Context, id estate.MachineID, d driver.Disk) error {
			if names, _ := l.Host.Attached(ctx, id); slices.Contains(names, d.Name) {
				return nil
			}
			return l.Host.Attach(ctx, id, d)
		}
	},
	"AttachAnotherUnderADefinedNameIsExists": func(l *liar, _ *Bench) {
		l.attach = func(ctx context.Context, id estate.MachineID, d driver.Disk) error {
			if d.Name == "root" {
				return nil
			}
			return l.Host.Attach(ctx, id, d)
		}
	},
	"AttachToAMachineThatIsOffIsConflict": func(l *liar, _ *Bench) {
		l.attach = func(ctx context.Context, id estate.MachineID, d driver.Disk) error {
			if err := l.Host.Attach(ctx, id, d); !errors.Is(err, fault.Conflict) {
				return err
			}
			return nil
		}
	},
	"AttachUnknownIsNotFound": func(l *liar, _ *Bench) {
		l.attach = func(ctx context.Context, id estate.MachineID, d driver.Disk) error {
			return nameless(l.Host.Attach(ctx, id, d))
		}
	},
	"AttachBeyondTheSlotsIsNoCapacity": func(l *liar, _ *Bench) {
		l.attach = func(ctx context.Context, id estate.MachineID, d driver.Disk) error {
			if err := l.Host.Attach(ctx, id, d); !errors.Is(err, fault.NoCapacity) {
				return err
			}
			return nil
		}
	},
	"AttachedGoesWithThePower": func(l *liar, _ *Bench) {
		ever := map[string]bool{}
		l.attach = func(ctx context.Context, id estate.MachineID, d driver.Disk) error {
			ever[d.Name] = true
			return l.Host.Attach(ctx, id, d)
		}
		l.attached = func([]string) []string {
			var names []string
			for n := range ever {
				names = append(names, n)
			}
			return names
		}
	},
	"AttachedIsReadByTheGuest": func(l *liar, _ *Bench) {
		l.attach = func(context.Context, estate.MachineID, driver.Disk) error { return nil }
	},
	"DetachTakesOut": func(l *liar, _ *Bench) {
		l.detach = func(context.Context, estate.MachineID, string) error { return nil }
	},
	"DetachLeavesTheOthers": func(l *liar, _ *Bench) {
		l.detach = func(ctx context.Context, id estate.MachineID, _ string) error {
			names, err := l.Host.Attached(ctx, id)
			for _, n := range names {
				err = errors.Join(err, l.Host.Detach(ctx, id, n))
			}
			return err
		}
	},
	"DetachAbsentIsSuccess": func(l *liar, _ *Bench) {
		l.detach = func(ctx context.Context, id estate.MachineID, name string) error {
			if names, _ := l.Host.Attached(ctx, id); !slices.Contains(names, name) {
				return fault.NotFound.Errorf("no disk %s", name)
			}
			return l.Host.Detach(ctx, id, name)
		}
	},
}

var guestLies = map[string]lie{
	"RunReturnsTheOutput": output(func(o *driver.Output) { o.Stdout = nil }),
	"RunPassesTheInput": func(l *liar, _ *Bench) {
		l.run = func(ctx context.Context, id estate.MachineID, cmd driver.Command) (driver.Output, error) {
			cmd.Stdin = nil
			return l.Host.Run(ctx, id, cmd)
		}
	},
	"RunThatExitsUnequalToZeroIsNoError": func(l *liar, _ *Bench) {
		l.run = func(ctx context.Context, id estate.MachineID, cmd driver.Command) (driver.Output, error) {
			out, err := l.Host.Run(ctx, id, cmd)
			if out.Exit != 0 {
				err = fault.Internal.Errorf("exit %d", out.Exit)
			}
			return out, err
		}
	},
	"RunBoundsTheOutput": output(func(o *driver.Output) { o.Stdout = append(o.Stdout, o.Stdout...) }),
	"RunWithoutAnAgentIsUnavailable": func(l *liar, _ *Bench) {
		l.run = func(ctx context.Context, id estate.MachineID, cmd driver.Command) (driver.Output, error) {
			out, err := l.Host.Run(ctx, id, cmd)
			if errors.Is(err, fault.Unavailable) {
				err = fault.Conflict.Errorf("no agent")
			}
			return out, err
		}
	},
	"RunUnknownIsNotFound": func(l *liar, _ *Bench) {
		l.run = func(ctx context.Context, id estate.MachineID, cmd driver.Command) (driver.Output, error) {
			out, err := l.Host.Run(ctx, id, cmd)
			if errors.Is(err, fault.NotFound) {
				err = fault.Unavailable.Errorf("no agent")
			}
			return out, err
		}
	},
}

// output spoils what commands leave behind.
func output(spoil func(*driver.Output)) func(*liar, *Bench) {
	return func(l *liar, _ *Bench) {
		l.run = func(ctx context.Context, id estate.MachineID, cmd driver.Command) (driver.Output, error) {
			out, err := l.Host.Run(ctx, id, cmd)
			spoil(&out)
			return out, err
		}
	}
}
