package qemu

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/internal/atomicfile"
)

// shelved begins the name of the folder of a machine that is not defined but
// keeps its disks. Nothing but Define and Delete of its ID touches it.
const shelved = ".shelf-"

// shelf is where the machine's folder lies while it is shelved.
func (m *machine) shelf() string { return filepath.Join(m.host.cfg.Dir, shelved+string(m.id)) }

// Shelve implements driver.Transferer. One rename does it, so that a crash
// leaves the machine defined or shelved.
func (h *Host) Shelve(ctx context.Context, id estate.MachineID) error {
	m, err := h.machine(ctx, id)
	if err != nil {
		return err
	}
	defer h.done(m)
	if !m.isDefined() {
		return nil
	}
	if err := m.mustBeOff(); err != nil {
		return err
	}
	m.disconnect()
	if err := os.Rename(m.dir, m.shelf()); err != nil {
		return err
	}
	m.forgotten()
	return errors.Join(atomicfile.SyncDir(h.cfg.Dir), os.RemoveAll(m.run))
}

// unshelve takes the machine off the shelf where it lies there. Its user may
// have been given to another machine meanwhile, so it gets one anew, which is
// recorded before the machine is there again.
func (m *machine) unshelve(def driver.Definition) (found bool, err error) {
	r, err := readRecord(m.shelf())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if !r.Def.Equal(def) {
		return false, fault.Exists.Errorf("machine %s is shelved with another definition; delete it first", m.id)
	}
	if r.UID, err = m.host.reserveUID(m); err != nil {
		return false, err
	}
	if err := r.write(m.shelf()); err != nil {
		return false, err
	}
	if err := os.Rename(m.shelf(), m.dir); err != nil {
		return false, err
	}
	m.known(r)
	return true, atomicfile.SyncDir(m.host.cfg.Dir)
}

// mustBeOff returns fault.Conflict where the machine runs. Callers hold the turn.
func (m *machine) mustBeOff() error {
	lives, err := alive(m.dir)
	if err == nil && lives {
		err = fault.Conflict.Errorf("machine %s runs; stop it first", m.id)
	}
	return err
}

// known takes the machine up as defined.
func (m *machine) known(r record) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rec, m.defined = r, true
	m.host.news.tell(m.id)
}

// forgotten takes the machine up as not defined.
func (m *machine) forgotten() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rec, m.defined = record{}, false
	m.host.news.tell(m.id)
}
