package qemu

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/internal/atomicfile"
	"consort.dev/consort/internal/qmp"
)

// Freeze implements driver.Cloner. In order: save the machine, as Save does;
// load it once more, with its memory in a file, and write the rest of its state
// beside that; rename its folder. A crash before the last step leaves a saved
// machine, one after it a template.
func (h *Host) Freeze(ctx context.Context, id estate.MachineID, name string) error {
	if done, err := h.frozen(ctx, id, name); done || err != nil {
		return err
	}
	m, c, err := h.running(ctx, id)
	if err != nil {
		return err
	}
	defer h.done(m)
	if why := m.record().Def.Freezable(); why != "" {
		return fault.Invalid.Errorf("machine %s makes no template: %s", id, why)
	}
	if err := m.saveMemory(ctx, c); err != nil {
		return err
	}
	r, err := m.takeApart(ctx)
	if err != nil {
		return errors.Join(err, m.sweep())
	}
	if err := m.becomeTemplate(r, name); err != nil {
		return err
	}
	h.warm(ctx, name)
	return nil
}

// warm has the memory of a template at hand, so that the first who goes on from
// it waits no longer than the next. It is loaded when it is needed otherwise.
func (h *Host) warm(ctx context.Context, name string) {
	h.templates.mu.Lock()
	t := h.templates.all[name]
	h.templates.mu.Unlock()
	if t == nil {
		return
	}
	if f, err := t.share(ctx); err == nil {
		f.Close()
	}
}

// frozen reports whether the machine has become the template already. Another
// one of that name is fault.Exists.
func (h *Host) frozen(ctx context.Context, id estate.MachineID, name string) (bool, error) {
	h.templates.mu.Lock()
	t := h.templates.all[name]
	h.templates.mu.Unlock()
	if t == nil {
		return false, nil
	}
	m, err := h.machine(ctx, id)
	if err != nil {
		return false, err
	}
	defer h.done(m)
	if m.isDefined() || t.rec.Def.ID != id {
		return false, fault.Exists.Errorf("template %s exists", name)
	}
	return true, nil
}

// takeApart replaces the saved memory by a memory file and a file with the rest
// of the machine's state, and returns the record that speaks of them. The
// machine itself never runs meanwhile. Callers hold the turn.
func (m *machine) takeApart(ctx context.Context) (record, error) {
	r := m.record()
	memory, err := newMemory(int64(r.Def.Memory))
	if err != nil {
		return r, err
	}
	defer memory.Close()
	next := r
	next.Saved = &saved{File: "state", RAM: "memory", Product: m.host.maker()}
	if err := m.reload(ctx, r, memory, next.Saved.File); err != nil {
		return r, err
	}
	err = fill(filepath.Join(m.dir, next.Saved.RAM), func(f *os.File) error {
		if err := f.Truncate(int64(r.Def.Memory)); err != nil {
			return err
		}
		return copyData(ctx, f, memory, int64(r.Def.Memory))
	})
	if err != nil {
		return r, err
	}
	for _, d := range r.Def.Disks {
		c, private := r.Copies[d.Name]
		if !private {
			continue
		}
		below := layer{File: filepath.Join(m.dir, c.File), Format: c.Format}
		if err := m.host.overlay(ctx, filepath.Join(m.dir, d.Name+blankEnding), &below, diskSize(d)); err != nil {
			return r, err
		}
		for _, l := range c.layers() {
			if err := os.Chmod(filepath.Join(m.dir, l.File), 0o444); err != nil {
				return r, err
			}
		}
	}
	return next, nil
}

// fill makes a file that is never changed again, and is on the disk.
func fill(path string, write func(*os.File) error) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Sync(), f.Close())
}

// reload starts a process that reads the machine's saved memory into memory and
// writes all else of its state to a file. Its guest never runs; Open ends such a
// process as any whose memory is saved.
func (m *machine) reload(ctx context.Context, r record, memory *os.File, state string) error {
	life, err := lockLife(m.dir)
	if err != nil {
		return err
	}
	if life == nil {
		return fault.Busy.Errorf("machine %s is powering off", m.id)
	}
	defer life.Close()
	if err := m.cleanRun(r.UID); err != nil {
		return err
	}
	d, err := m.open(ctx, r)
	if err != nil {
		return err
	}
	defer d.close()
	own, err := duplicate(memory)
	if err != nil {
		return err
	}
	d.launch.ram, d.launch.shared = d.add(own), true
	ended, err := m.launch(ctx, r, d, life)
	if err != nil {
		return err
	}
	life.Close()
	defer func() { m.stop(context.WithoutCancel(ctx), 0) }() // what is still there has nothing to lose
	c, err := m.dial(ctx, ended)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := awaitMemory(ctx, c); err != nil {
		return err
	}
	err = fill(filepath.Join(m.dir, state), func(f *os.File) error {
		if err := ignoreShared(ctx, c, true); err != nil {
			return err
		}
		return migrateTo(ctx, c, f)
	})
	if err != nil {
		return err
	}
	c.Execute(ctx, "quit", nil, nil) // an answer may or may not come
	return m.awaitEnd(ctx, quitLimit)
}

// ignoreShared leaves memory that lies in a file out of what is written or read,
// or no longer does.
func ignoreShared(ctx context.Context, c *qmp.Client, ignore bool) error {
	return c.Execute(ctx, "migrate-set-capabilities",
		node{"capabilities": []node{{"capability": "x-ignore-shared", "state": ignore}}}, nil)
}

// dial connects to a process of ours that has just been started, without
// settling anything about it.
func (m *machine) dial(ctx context.Context, ended <-chan struct{}) (*qmp.Client, error) {
	for {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "unix", filepath.Join(m.run, qmpSocket))
		if err == nil {
			return qmp.New(ctx, conn)
		}
		t := time.NewTimer(spawnLook)
		select {
		case <-t.C:
		case <-ended:
			t.Stop()
			return nil, m.failure()
		case <-ctx.Done():
			t.Stop()
			return nil, ctx.Err()
		}
	}
}

// becomeTemplate makes a machine that is taken apart the template of that name.
// Callers hold the turn.
func (m *machine) becomeTemplate(r record, name string) error {
	h := m.host
	h.templates.mu.Lock()
	defer h.templates.mu.Unlock()
	if h.templates.all[name] != nil {
		return errors.Join(fault.Exists.Errorf("template %s exists", name), m.sweep())
	}
	// From here on the machine starts from its memory file, were it started.
	if err := errors.Join(m.save(r), m.sweep()); err != nil {
		return err
	}
	m.disconnect()
	dir := h.templateDir(name)
	if err := os.Rename(m.dir, dir); err != nil {
		return err
	}
	h.templates.all[name] = &template{name: name, dir: dir, rec: r}
	m.forgotten()
	return errors.Join(atomicfile.SyncDir(h.cfg.Dir), os.RemoveAll(m.run))
}
