package qemu

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/internal/qmp"
)

// saved is the memory of a machine that is off.
type saved struct {
	File    string
	RAM     string `json:",omitempty"` // the file of its memory proper, where that lies apart from the rest
	Product string // what wrote it; another may not read it
}

// Save implements driver.Saver. In order: pause the guest, write its memory,
// record that it is saved, end the process. Until it is recorded the guest goes
// on whatever happens; from then on its process never runs it again.
func (h *Host) Save(ctx context.Context, id estate.MachineID) error {
	m, c, err := h.running(ctx, id)
	if errors.Is(err, fault.Conflict) {
		return nil // off
	}
	if err != nil {
		return err
	}
	defer h.done(m)
	return m.saveMemory(ctx, c)
}

// saveMemory saves a machine that runs. Callers hold the turn.
func (m *machine) saveMemory(ctx context.Context, c *qmp.Client) error {
	r := m.record()
	r.Saved, r.Paused = &saved{File: r.freeName("memory", ".state"), Product: m.host.maker()}, false
	err := m.writeMemory(ctx, c, r.Saved.File)
	if err == nil {
		err = m.save(r)
	}
	if err == nil {
		err = m.stop(ctx, 0)
	}
	if err != nil {
		m.disconnect() // whoever connects next settles it
		err = errors.Join(err, m.sweep())
	}
	return err
}

// writeMemory pauses the guest and writes its memory to a file.
func (m *machine) writeMemory(ctx context.Context, c *qmp.Client, name string) error {
	path := filepath.Join(m.dir, name)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := c.Execute(ctx, "stop", nil, nil); err != nil {
		return err
	}
	// A clone was started so, and has its memory by itself now.
	if err := ignoreShared(ctx, c, false); err != nil {
		return err
	}
	if err := migrateTo(ctx, c, f); err != nil {
		return err
	}
	return f.Sync()
}

// migrateTo writes the state of a guest that stands still to a file.
func migrateTo(ctx context.Context, c *qmp.Client, f *os.File) error {
	if err := c.ExecuteWith(ctx, f, "getfd", node{"fdname": "memory"}, nil); err != nil {
		return err
	}
	// The guest stands still: nothing is gained by sparing the host's disk.
	if err := c.Execute(ctx, "migrate-set-parameters", node{"max-bandwidth": 1 << 40}, nil); err != nil {
		return err
	}
	if err := c.Execute(ctx, "migrate", node{"uri": "fd:memory"}, nil); err != nil {
		return err
	}
	return awaitMigration(ctx, c)
}

// awaitMigration waits until the memory has been written, or read.
func awaitMigration(ctx context.Context, c *qmp.Client) error {
	for pause := firstLook; ; pause = min(2*pause, lastLook) {
		m, err := migrationIs(ctx, c)
		if err != nil {
			return err
		}
		switch m.Status {
		case "completed":
			return nil
		case "failed", "cancelled":
			kind := fault.Internal
			if strings.Contains(m.Why, "No space left") {
				kind = fault.NoCapacity
			}
			return kind.Errorf("QEMU does not write the memory: %s", m.Why)
		}
		if err := wait(ctx, pause); err != nil {
			return err
		}
	}
}

// settle brings a process that has just been connected to where its record says
// it is: it completes a power-on, ends one whose memory is saved, and lets one
// go on that a broken Save has left standing. Callers hold the turn.
func (m *machine) settle(ctx context.Context, c *qmp.Client, pid int) error {
	r := m.record()
	starting := r.Starts != r.Starting
	if r.Saved != nil && !starting {
		c.Execute(ctx, "quit", nil, nil) // an answer may or may not come
		return errors.Join(m.awaitEnd(ctx, quitLimit), errOff)
	}
	clone := r.Saved != nil && r.Saved.RAM != ""
	if clone {
		if err := m.receive(ctx, c, *r.Saved); err != nil {
			return err
		}
	}
	if r.Saved != nil {
		if err := awaitMemory(ctx, c); err != nil {
			return err
		}
	}
	if starting {
		// Recorded before the guest goes on: its memory is never used twice.
		r.Starts, r.Saved = r.Starting, nil
		if err := errors.Join(m.save(r), m.sweep()); err != nil {
			return err
		}
	}
	if clone || !starting {
		if err := m.yield(ctx, c, pid, clone); err != nil {
			return err
		}
	}
	if r.Paused {
		return c.Execute(ctx, "stop", nil, nil)
	}
	return m.resume(ctx, c)
}

// awaitMemory waits until a process that was started with saved memory has read
// it. A clone's is there in a few milliseconds, so it is looked at often.
func awaitMemory(ctx context.Context, c *qmp.Client) error {
	for pause := firstLook / 10; ; pause = min(pause*3/2, 2*firstLook) {
		status, err := runState(ctx, c)
		if err != nil || status != "inmigrate" {
			return err
		}
		if err := wait(ctx, pause); err != nil {
			return err
		}
	}
}

// resume lets a guest go on that stands still on our account, or is about to:
// memory may still be being written on behalf of a Save that was cut short.
func (m *machine) resume(ctx context.Context, c *qmp.Client) error {
	for end := time.Now().Add(quitLimit); ; {
		state, err := runState(ctx, c)
		if err != nil {
			return err
		}
		writing, err := migrationIs(ctx, c)
		if err != nil {
			return err
		}
		ours := slices.Contains([]string{"paused", "prelaunch", "finish-migrate", "postmigrate"}, state)
		active := slices.Contains([]string{"setup", "active", "device", "cancelling"}, writing.Status)
		if !ours && !active {
			return nil
		}
		if time.Now().After(end) {
			return fault.Stuck.Errorf("the guest stands still: %s", state)
		}
		// QEMU refuses either where it is not needed or too soon.
		var refused *qmp.Error
		if active {
			if err := c.Execute(ctx, "migrate_cancel", nil, nil); err != nil && !errors.As(err, &refused) {
				return err
			}
		}
		if err := c.Execute(ctx, "cont", nil, nil); err == nil && !active {
			return nil
		} else if err != nil && !errors.As(err, &refused) {
			return err
		}
		if err := wait(ctx, firstLook); err != nil {
			return err
		}
	}
}

// migration is what QEMU says of memory being written or read.
type migration struct {
	Status string `json:"status"`
	Why    string `json:"error-desc"`
}

func migrationIs(ctx context.Context, c *qmp.Client) (m migration, err error) {
	err = c.Execute(ctx, "query-migrate", nil, &m)
	return m, err
}

func runState(ctx context.Context, c *qmp.Client) (string, error) {
	var s struct {
		Status string `json:"status"`
	}
	err := c.Execute(ctx, "query-status", nil, &s)
	return s.Status, err
}
