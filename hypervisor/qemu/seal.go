package qemu

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/internal/leash"
	"consort.dev/consort/internal/luks"
)

// A sealed machine's disks are what they are for others, each in an envelope: the
// process reads and writes its qcow2 file through a layer of LUKS. Not even what
// it wrote where can be told from outside. Its key comes to the process in a file
// that has no name and lies in memory, as do its firmware's variables, and what it
// writes to its console is not logged.

// Key implements driver.Sealer.
func (h *Host) Key(ctx context.Context, id estate.MachineID) (driver.Key, error) {
	m, err := h.existing(ctx, id)
	if err != nil {
		return driver.Key{}, err
	}
	defer h.done(m)
	if !m.record().Def.Sealed {
		return driver.Key{}, fault.Invalid.Errorf("machine %s is not sealed", id)
	}
	if lives, err := alive(m.dir); err != nil {
		return driver.Key{}, err
	} else if !lives && m.record().Starting > 0 {
		m.loseKey()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return driver.Key{ID: m.rec.Key, Held: m.key != nil}, nil
}

// loseKey forgets the key of a machine whose process has ended. From then on
// nobody can read what it wrote.
func (m *machine) loseKey() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.key != nil {
		m.key.Forget()
		m.key = nil
	}
}

// startable returns fault.Conflict for a sealed machine that has lost its key, or
// has used it.
func (m *machine) startable(r record) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r.Def.Sealed && (m.key == nil || r.Starts > 0) {
		return fault.Conflict.Errorf("machine %s is sealed and its key is gone: delete it, and make another", m.id)
	}
	return nil
}

// sealDisks replaces the private disks that were made in dir by sealed ones. Nobody
// has written to them yet.
func sealDisks(dir string, r record, k *luks.Key) error {
	for _, c := range r.Copies {
		if err := sealFile(filepath.Join(dir, c.File), k); err != nil {
			return err
		}
	}
	return nil
}

func sealFile(path string, k *luks.Key) error {
	plain, err := os.Open(path)
	if err != nil {
		return err
	}
	defer plain.Close()
	if err := os.Remove(path); err != nil {
		return err
	}
	sealed, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(luks.Seal(sealed, k, plain), sealed.Close())
}

// inMemory returns a file without a name that holds b and lies in memory.
func inMemory(b []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("sealed", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "sealed")
	if _, err := f.WriteAt(b, 0); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// openSealed adds what a sealed machine has in memory: its key, and its
// firmware's variables.
func (m *machine) openSealed(d *descriptors) error {
	m.mu.Lock()
	if m.key == nil {
		m.mu.Unlock()
		return fault.Conflict.Errorf("the key of machine %s is gone", m.id)
	}
	key, err := inMemory(m.key[:])
	m.mu.Unlock()
	if err != nil {
		return err
	}
	d.launch.key = d.add(key)
	if d.launch.def.Firmware != estate.UEFI {
		return nil
	}
	b, err := os.ReadFile(filepath.Join(m.dir, varsFile))
	if err != nil {
		return err
	}
	vars, err := inMemory(b)
	if err == nil {
		d.launch.vars = d.add(vars)
	}
	return err
}

// openLogs opens what the machine writes to beside its disks, or what it has in
// memory instead.
func (m *machine) openLogs(d *descriptors) error {
	if d.launch.def.Sealed {
		return m.openSealed(d)
	}
	log, err := os.OpenFile(filepath.Join(m.dir, serialFile), os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND|unix.O_NOFOLLOW, 0o600)
	if err == nil {
		d.launch.serial = d.add(log)
	}
	return err
}

// secretName is the name of a machine's key in its process.
const secretName = "key"

// envelope is the node through which a sealed file is read and written.
func envelope(name string) node {
	return node{"driver": "luks", "node-name": envelopeName(name), "file": fileName(name), "key-secret": secretName}
}

// envelopeName returns the name of the envelope under a format's node.
func envelopeName(name string) string { return name + ".e" }

// leashed starts a process that the kernel kills when we end, however that
// happens.
func leashed(cmd *exec.Cmd, start func(*exec.Cmd) error) error {
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := start(cmd)
		started <- err
		if err == nil {
			leash.Hold(cmd.Process.Pid)
		}
	}()
	return <-started
}

// endSealed ends the machine's process if it is sealed and there is one: we have
// no key of it, as after a crash of ours that the kernel was slow to hear of.
func (m *machine) endSealed(ctx context.Context) error {
	if !m.record().Def.Sealed {
		return nil
	}
	defer m.loseKey()
	if lives, err := alive(m.dir); err != nil || !lives {
		return err
	}
	if err := m.killSoon(ctx); err != nil {
		return err
	}
	return m.awaitEnd(ctx, quitLimit)
}

// closeLimit bounds what Close waits for machines to end.
const closeLimit = 2 * time.Second
