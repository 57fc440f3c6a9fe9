package libvirt

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
	"consort.dev/consort/internal/virtrpc"
)

// Define implements driver.Host. The disks are there before the daemon knows
// the machine. A folder with a record and no domain is a machine on the shelf.
func (h *Host) Define(ctx context.Context, def driver.Definition) error {
	give, err := h.take(ctx, def.ID)
	if err != nil {
		return err
	}
	defer give()
	if known, err := h.known(ctx, def); known || err != nil {
		return err
	}
	for _, n := range def.NICs {
		if n.Bridge == "" {
			return fault.Unsupported.Errorf("machine %s: network card %s joins no bridge, and cards join nothing else here", def.ID, n.MAC)
		}
	}
	r, shelved, err := h.shelf(def.ID)
	if err != nil {
		return err
	}
	if shelved && !r.Def.Equal(def) {
		return fault.Exists.Errorf("machine %s is shelved with another definition", def.ID)
	}
	if !shelved {
		if r, err = h.make(ctx, def); err != nil {
			return err
		}
	}
	r.Starts, r.Started = 0, r.Started.UTC()
	if err := h.define(ctx, r); err != nil {
		return err
	}
	return h.writeShelf(r)
}

// known reports whether the daemon has the machine as it is to be.
func (h *Host) known(ctx context.Context, def driver.Definition) (bool, error) {
	known, err := h.equal(ctx, def)
	if !errors.Is(err, fault.NotFound) {
		return known, err
	}
	if _, _, err := h.conn.State(ctx, string(def.ID)); err != nil {
		if errors.Is(err, fault.NotFound) {
			err = nil
		}
		return false, err
	}
	// A call that was cut may have defined it since we looked.
	known, err = h.equal(ctx, def)
	if errors.Is(err, fault.NotFound) {
		err = fault.Exists.Errorf("the daemon has a domain %s that is not ours", def.ID)
	}
	return known, err
}

// equal reports whether the machine is defined as given; another definition is
// fault.Exists, and none of ours fault.NotFound.
func (h *Host) equal(ctx context.Context, def driver.Definition) (bool, error) {
	r, err := h.record(ctx, def.ID)
	if err == nil && !r.Def.Equal(def) {
		err = fault.Exists.Errorf("machine %s exists with another definition", def.ID)
	}
	return err == nil, err
}

// make makes the machine's folder with its disks. Callers hold the turn.
func (h *Host) make(ctx context.Context, def driver.Definition) (record, error) {
	r := record{Owner: h.owner, Def: def, Copies: map[string]copied{}}
	tmp := filepath.Join(h.cfg.Dir, making+string(def.ID))
	if err := errors.Join(os.RemoveAll(tmp), os.RemoveAll(h.dir(def.ID))); err != nil {
		return r, err
	}
	defer os.RemoveAll(tmp) // it is gone when all went well
	if err := os.Mkdir(tmp, 0o711); err != nil {
		return r, err
	}
	for _, d := range def.Disks {
		if d.File != nil {
			continue
		}
		c, err := h.private(ctx, tmp, d)
		if err != nil {
			return r, err
		}
		r.Copies[d.Name] = c
	}
	if def.Firmware == estate.UEFI {
		if _, err := os.Stat(filepath.Join(h.cfg.Firmware, "OVMF_VARS_4M.fd")); err != nil {
			return r, fault.Unsupported.Errorf("UEFI firmware for machine %s: %w; install Debian's ovmf", def.ID, err)
		}
	}
	if err := os.Rename(tmp, h.dir(def.ID)); err != nil {
		return r, err
	}
	return r, atomicfile.SyncDir(h.cfg.Dir)
}

// Delete implements driver.Host. An adopted machine keeps its disks, which are
// not in its folder. A domain that is not ours stays.
func (h *Host) Delete(ctx context.Context, id estate.MachineID) error {
	give, err := h.take(ctx, id)
	if err != nil {
		return err
	}
	defer give()
	r, err := h.record(ctx, id)
	if err == nil {
		err = h.remove(ctx, id, r.Adopted)
	}
	if err != nil && !errors.Is(err, fault.NotFound) {
		return err
	}
	gone := filepath.Join(h.cfg.Dir, removing+string(id))
	if err := os.RemoveAll(gone); err != nil { // what an earlier call could not remove
		return err
	}
	// A machine that has lost some of its disks must never be taken for one.
	if err := os.Rename(h.dir(id), gone); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return errors.Join(atomicfile.SyncDir(h.cfg.Dir), os.RemoveAll(gone))
}

// remove stops a domain and takes its definition away. A power-on that an
// earlier call has left under way makes it transient; then it is stopped again.
func (h *Host) remove(ctx context.Context, id estate.MachineID, keepVariables bool) error {
	if err := h.stop(ctx, id, 0); err != nil {
		return err
	}
	if err := h.conn.Undefine(ctx, string(id), keepVariables); err != nil && !errors.Is(err, fault.NotFound) {
		return err
	}
	for pause := firstLook; ; pause = min(2*pause, lastLook) {
		_, _, err := h.conn.State(ctx, string(id))
		if errors.Is(err, fault.NotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		h.conn.Destroy(ctx, string(id)) // what came of it is looked at
		if err := wait(ctx, pause); err != nil {
			return err
		}
	}
}

// Shelve implements driver.Transferer.
func (h *Host) Shelve(ctx context.Context, id estate.MachineID) error {
	r, give, err := h.resting(ctx, id)
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer give()
	if r.Adopted {
		return fault.Conflict.Errorf("machine %s was adopted; release it instead", id)
	}
	if err := h.writeShelf(r); err != nil {
		return err
	}
	return h.conn.Undefine(ctx, string(id), true)
}

// Resize implements driver.Resizer.
func (h *Host) Resize(ctx context.Context, id estate.MachineID, cpus int, memory estate.Bytes) error {
	r, give, err := h.resting(ctx, id)
	if err != nil {
		return err
	}
	defer give()
	if r.Def.CPUs == cpus && r.Def.Memory == memory {
		return h.forgetSaved(ctx, id)
	}
	if err := h.forgetSaved(ctx, id); err != nil {
		return err
	}
	r.Def.CPUs, r.Def.Memory = cpus, memory
	if r.Adopted {
		return h.resizeAdopted(ctx, r)
	}
	return h.define(ctx, r)
}

// Save implements driver.Saver. The copy of the record that goes to disk with
// the memory is that of this power-on, which its number tells from the next.
func (h *Host) Save(ctx context.Context, id estate.MachineID) error {
	r, give, err := h.existing(ctx, id)
	if err != nil {
		return err
	}
	defer give()
	state, _, err := h.conn.State(ctx, string(id))
	if err != nil || state == virtrpc.ShutOff {
		return err
	}
	if _, err = h.settle(ctx, r, false); err != nil {
		return err
	}
	if err := h.conn.Save(ctx, string(id)); err != nil {
		if state, _, again := h.conn.State(ctx, string(id)); again != nil || state != virtrpc.ShutOff {
			return err
		}
	}
	return nil
}

// forgetSaved removes saved memory, which fits the machine no more.
func (h *Host) forgetSaved(ctx context.Context, id estate.MachineID) error {
	saved, err := h.conn.Saved(ctx, string(id))
	if err != nil || !saved {
		return err
	}
	return h.conn.ForgetSaved(ctx, string(id))
}
