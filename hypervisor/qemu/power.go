package qemu

import (
	"context"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// Start implements driver.Host. In order: lock its life, record the intent,
// spawn, wait until the process answers, record the deed. A crash of ours
// between any two leaves the kernel holding the lock exactly while a process
// lives, and the record tells whether its start was counted.
func (h *Host) Start(ctx context.Context, id estate.MachineID) error {
	m, err := h.existing(ctx, id)
	if err != nil {
		return err
	}
	defer h.done(m)
	if c := m.controller(); c != nil {
		return m.goOn(ctx, c)
	}
	life, err := lockLife(m.dir)
	if err == nil && life == nil { // it lives: begun by an earlier call, or about to end
		if err = m.await(ctx, nil); err == nil {
			if c := m.controller(); c != nil {
				return m.goOn(ctx, c)
			}
			return nil
		} else if !errors.Is(err, fault.Busy) {
			return err
		}
		life, err = lockLife(m.dir)
	}
	if err != nil {
		return err
	}
	if life == nil {
		return fault.Busy.Errorf("machine %s is powering off", m.id)
	}
	defer life.Close()
	m.disconnect() // of a process that has ended
	r := m.record()
	if err := m.startable(r); err != nil {
		return err
	}
	r.Paused = false
	if r.Saved == nil {
		r.Plugged, r.Apart, r.Built, r.Joined = nil, false, 0, nil
	} else if r.Saved.Product != h.maker() {
		return fault.Unsupported.Errorf("the memory of machine %s was saved by %s, and this is %s; resize the machine, to what it is, to have it start without", m.id, r.Saved.Product, h.maker())
	}
	r.Gone, r.Cards = flow{}, nil
	if cards, ok := cardCounts(r.Def.NICs); ok {
		r.Cards = &cards
	}
	r.Starting = r.Starts + 1
	r.Started = time.Now().UTC()
	if err := m.cleanRun(r.UID); err != nil {
		return err
	}
	if err := m.save(r); err != nil {
		return err
	}
	ended, err := m.spawn(ctx, r, life)
	if err != nil {
		return err
	}
	life.Close() // the process has it now
	return m.await(ctx, ended)
}

// cleanRun makes the folder of the machine's sockets, empty, for its user alone.
func (m *machine) cleanRun(uid int) error {
	if err := os.RemoveAll(m.run); err != nil {
		return err
	}
	if err := os.Mkdir(m.run, 0o700); err != nil {
		return err
	}
	return os.Chown(m.run, uid, -1)
}

// spawn starts the machine's process in a session of its own, so that no signal
// meant for us reaches it. The returned channel is closed when it has ended.
func (m *machine) spawn(ctx context.Context, r record, life *os.File) (<-chan struct{}, error) {
	fds, err := m.open(ctx, r)
	if err != nil {
		return nil, err
	}
	defer fds.close()
	return m.launch(ctx, r, fds, life)
}

// launch starts the machine's process with its files.
func (m *machine) launch(ctx context.Context, r record, fds *descriptors, life *os.File) (<-chan struct{}, error) {
	fds.add(life)
	log, err := os.OpenFile(filepath.Join(m.dir, logFile), os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(m.host.cfg.Program, fds.launch.argv()...)
	cmd.Dir = m.run
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C"}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = fds.files
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(r.UID), Gid: uint32(r.UID), Groups: m.host.gid}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	start := m.host.run
	if fds.launch.ram != 0 && !fds.launch.shared {
		start = m.host.startSmall
	}
	if r.Def.Sealed {
		unleashed := start
		start = func(cmd *exec.Cmd) error { return leashed(cmd, unleashed) }
	}
	if err := start(cmd); err != nil {
		return nil, fault.Unavailable.Errorf("start %s: %w", m.host.cfg.Program, err)
	}
	ended := make(chan struct{})
	go func() {
		cmd.Wait() // how it ended stands in its log
		if r.Def.Sealed {
			m.loseKey()
		}
		close(ended)
	}()
	return ended, nil
}

// startSmall starts a process that gets no huge pages, which QEMU asks for: one
// that goes on from a template writes a little in many places, and there are many
// of them. A process inherits this from whoever begins it (prctl(2)), so that for
// a moment we get none either.
func (h *Host) startSmall(cmd *exec.Cmd) error {
	h.small.Lock()
	defer h.small.Unlock()
	if err := unix.Prctl(unix.PR_SET_THP_DISABLE, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	defer unix.Prctl(unix.PR_SET_THP_DISABLE, 0, 0, 0, 0)
	return h.run(cmd)
}

// run starts a machine's process, confined where there is what confines it.
func (h *Host) run(cmd *exec.Cmd) error {
	switch {
	case h.cfg.Confiner == nil:
		return cmd.Start()
	case h.desc.Accelerator == "kvm":
		return h.cfg.Confiner.Start(cmd, "/dev/kvm")
	}
	return h.cfg.Confiner.Start(cmd)
}

// spawnLook is how often a process that has just been started is tried.
const spawnLook = 3 * time.Millisecond

// await connects to a process that has just been started, or that lives though
// it does not answer yet; ended is nil where it is not our child.
func (m *machine) await(ctx context.Context, ended <-chan struct{}) error {
	for {
		err := m.connect(ctx)
		if err == nil {
			return nil
		}
		if errors.Is(err, fault.Stuck) {
			return err
		}
		t := time.NewTimer(spawnLook)
		select {
		case <-t.C:
		case <-ended:
			t.Stop()
			return m.failure()
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
		if ended == nil && errors.Is(err, errOff) {
			return fault.Busy.Errorf("machine %s has just powered off", m.id)
		}
	}
}

// failure says why a process ended before it answered.
func (m *machine) failure() error {
	text, kind := m.logTail(), fault.Internal
	switch {
	case strings.Contains(text, `Failed to get "`):
		kind = fault.Busy // a disk is in use elsewhere
	case strings.Contains(text, "Cannot allocate memory"):
		kind = fault.NoCapacity
	}
	return kind.Errorf("the machine's process ended at once: %s", text)
}

// Stop implements driver.Host.
func (h *Host) Stop(ctx context.Context, id estate.MachineID, grace time.Duration) error {
	m, err := h.existing(ctx, id)
	if err != nil {
		return err
	}
	defer h.done(m)
	return m.stop(ctx, grace)
}

// quitLimit is how long a process may take to end when it is told to. Flushing
// disks takes it milliseconds; past that it hangs and is killed.
const quitLimit = 3 * time.Second

// stop powers the machine off. Callers hold the turn.
func (m *machine) stop(ctx context.Context, grace time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if lives, err := alive(m.dir); err != nil || !lives {
		m.disconnect()
		return err
	}
	if c := m.controller(); c != nil && grace > 0 && m.goOn(ctx, c) != nil {
		grace = 0 // it hears nothing
	}
	if grace > 0 && m.ask(ctx) {
		if err := m.awaitEnd(ctx, grace); err == nil || ctx.Err() != nil {
			return err
		}
	}
	if m.tell(ctx, "quit") == nil && m.awaitEnd(ctx, quitLimit) == nil {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := m.killSoon(ctx); err != nil {
		return err
	}
	return m.awaitEnd(ctx, quitLimit)
}

// killSoon kills the process as soon as it can be found: one that only begins,
// or is about to end, holds the lock and listens nowhere.
func (m *machine) killSoon(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(quitLimit); ; {
		if lives, err := alive(m.dir); err != nil || !lives {
			return err
		}
		err := m.kill()
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			return fault.Stuck.Errorf("machine %s does not end: %w", m.id, err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// ask asks the guest to power off, by its power button and through its agent:
// desktops without a login daemon hear no button. It reports whether there is
// anything to wait for.
func (m *machine) ask(ctx context.Context) bool {
	if m.tell(ctx, "system_powerdown") != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, quitLimit)
	defer cancel()
	if c := m.controller(); c != nil && listens(ctx, c) == nil {
		m.mu.Lock()
		agent := m.agent
		m.mu.Unlock()
		agent.Shutdown(ctx) // one that does not answer has the button
	}
	return true
}

// tell sends a command to the process, connecting first where needed.
func (m *machine) tell(ctx context.Context, command string) error {
	ctx, cancel := context.WithTimeout(ctx, quitLimit)
	defer cancel()
	if err := m.connect(ctx); err != nil {
		return err
	}
	c := m.controller()
	if c == nil {
		return errOff
	}
	return c.Execute(ctx, command, nil, nil)
}

// awaitEnd waits until the kernel says that nothing of the process is left.
func (m *machine) awaitEnd(ctx context.Context, limit time.Duration) error {
	late := time.NewTimer(limit)
	defer late.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		lives, err := alive(m.dir)
		if err != nil {
			return err
		}
		if !lives {
			m.disconnect()
			return nil
		}
		select {
		case <-tick.C:
		case <-late.C:
			return fault.Busy.Errorf("machine %s is still powering off", m.id)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// kill kills the process that holds the machine's life lock. The number comes
// from the kernel and is turned into a handle before the lock is looked at
// again, so that a number used anew is never hit.
func (m *machine) kill() error {
	pid, err := m.pid()
	if err != nil {
		return err
	}
	handle, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(handle)
	if lives, err := alive(m.dir); err != nil || !lives {
		return err
	}
	return unix.PidfdSendSignal(handle, unix.SIGKILL, nil, 0)
}

// descriptors are the files that a machine's process inherits. It gets each
// open, and the right to open none.
type descriptors struct {
	files  []*os.File
	launch launch
}

// add passes a file on and returns its number in the process: 0 to 2 are the
// standard ones.
func (d *descriptors) add(f *os.File) int {
	d.files = append(d.files, f)
	return len(d.files) + 2
}

func (d *descriptors) close() {
	for _, f := range d.files {
		f.Close()
	}
}

// open opens everything the machine consists of.
func (m *machine) open(ctx context.Context, r record) (d *descriptors, err error) {
	d = &descriptors{launch: launch{def: r.Def, run: m.run, cpu: m.host.cpu(), accel: m.host.accel()}}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	openFile := func(path string, readOnly bool) (int, error) {
		f, err := openDisk(path, readOnly)
		if err != nil {
			return 0, err
		}
		return d.add(f), nil
	}
	for _, disk := range r.Def.Disks {
		var files []diskFile
		for i, l := range m.stack(disk) {
			fd, err := openFile(l.File, disk.ReadOnly || i > 0)
			if err != nil {
				return d, err
			}
			sealed := r.Def.Sealed && i == 0 && disk.File == nil
			files = append(files, diskFile{fd, l.Format, sealed})
		}
		d.launch.disks = append(d.launch.disks, files)
	}
	if r.Def.Firmware == estate.UEFI {
		if d.launch.code, err = openFile(filepath.Join(m.host.cfg.Firmware, "OVMF_CODE_4M.fd"), true); err != nil {
			return d, err
		}
		if d.launch.vars, err = openFile(filepath.Join(m.dir, varsFile), r.Def.Sealed); err != nil {
			return d, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.Plugged)) {
		p := r.Plugged[name]
		fd, err := openFile(p.Disk.File.Path, p.Disk.ReadOnly)
		if err != nil {
			return d, err
		}
		d.launch.plugged = append(d.launch.plugged, plug{p, diskFile{fd: fd, format: p.Disk.File.Format}})
	}
	if r.Saved != nil && r.Saved.RAM != "" {
		f, err := m.memory(ctx, r)
		if err != nil {
			return d, err
		}
		d.launch.ram = d.add(f)
	} else if r.Saved != nil {
		if d.launch.memory, err = openFile(filepath.Join(m.dir, r.Saved.File), true); err != nil {
			return d, err
		}
	}
	if err := m.openLogs(d); err != nil {
		return d, err
	}
	d.launch.built, d.launch.joined = len(r.Def.NICs), r.Joined
	if r.Apart {
		d.launch.built = r.Built
	}
	for i, nic := range r.Def.NICs {
		if i == d.launch.built+len(r.Joined) {
			break
		}
		if nic.Unplugged {
			d.launch.nics = append(d.launch.nics, 0)
			continue
		}
		f, err := openNIC(ctx, nic)
		if err != nil {
			return d, err
		}
		d.launch.nics = append(d.launch.nics, d.add(f))
	}
	return d, nil
}

func (h *Host) accel() string {
	if h.desc.Accelerator == "kvm" {
		return "kvm"
	}
	// Translated code is bounded; left alone it takes up to a GiB a machine.
	return "tcg,thread=multi,tb-size=256"
}

// cpu is the model that guests see. Under emulation it is all that QEMU knows
// but SMAP, which it gets wrong before 9.1 (upstream commit 0bd385e7e3c3).
func (h *Host) cpu() string {
	switch {
	case h.cfg.CPU != "":
		return h.cfg.CPU
	case h.desc.Accelerator == "kvm":
		return "host"
	}
	return "max,-smap"
}

// plugs returns a copy of the attached disks that may be changed.
func (r record) plugs() map[string]plugged {
	if r.Plugged == nil {
		return map[string]plugged{}
	}
	return maps.Clone(r.Plugged)
}
