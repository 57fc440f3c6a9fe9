package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// What lies in a machine's folder beside its disks.
const (
	recordFile  = "machine.json"
	lifeFile    = "life"        // locked for as long as the kernel lives
	kernelFile  = "kernel.log"  // what the kernel says as a process
	consoleFile = "console.log" // what its console says
	keysFile    = "keys"        // a pipe to its console
)

// machine is one machine; what there is to know of it is on disk.
type machine struct {
	id  estate.MachineID
	dir string // its folder
	run string // where the kernel puts its control socket
}

func (h *Host) machine(id estate.MachineID) machine {
	return machine{id, filepath.Join(h.dir, string(id)), filepath.Join(h.dir, "run", string(id))}
}

func (m machine) path(name string) string { return filepath.Join(m.dir, name) }

func (m machine) shelf() string { return filepath.Join(filepath.Dir(m.dir), ".shelf-"+string(m.id)) }

// record is what is kept of a machine.
type record struct {
	Def      driver.Definition
	Starts   int64 // completed power-ons
	Starting int64 // the number of the last one begun
	Started  time.Time
}

// read returns the record, with a start counted that our death kept us from counting.
func (m machine) read() (r record, err error) {
	b, err := os.ReadFile(m.path(recordFile))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return r, fault.NotFound.Errorf("no machine %s", m.id)
	}
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if said, e := os.Stat(m.path(kernelFile)); e == nil && said.Size() > 0 {
		r.Starts = r.Starting
	}
	return r, err
}

// write replaces the record, whole or not at all.
func (r record) write(dir string) error {
	b, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, recordFile+".new")
	f, err := os.Create(tmp)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(b); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, recordFile))
}

// lock opens and locks a file; nil says that somebody else has it. The lock
// belongs to the open file (fcntl(2), F_OFD_SETLK): a kernel that inherits the
// file holds it until its last process has gone, and numbers of processes, which
// are used again, need not be trusted.
func lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return nil, nil
	}
	return nil, err
}

// power says whether the kernel lives, by its lock.
func (m machine) power() estate.Power {
	f, err := os.OpenFile(m.path(lifeFile), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return estate.Off // never started
	}
	if err != nil {
		return estate.PowerUnknown
	}
	defer f.Close()
	held := unix.Flock_t{Type: unix.F_WRLCK}
	switch err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &held); {
	case err != nil:
		return estate.PowerUnknown
	case held.Type == unix.F_UNLCK:
		return estate.Off
	}
	return estate.On
}

// clear removes what an earlier run left, and makes the pipe for keys.
func (m machine) clear() error {
	for _, path := range []string{m.path(kernelFile), m.path(consoleFile), m.path(keysFile), m.run} {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	return unix.Mkfifo(m.path(keysFile), 0o600)
}

// spawn starts the kernel in a session of its own, so that no signal meant for
// us reaches it, with the lock of its life as one of its files.
func (m machine) spawn(ctx context.Context, def driver.Definition, life *os.File) error {
	says, err1 := os.OpenFile(m.path(kernelFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	console, err2 := os.OpenFile(m.path(consoleFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	// Open both ways, a pipe never ends.
	keys, err3 := os.OpenFile(m.path(keysFile), os.O_RDWR, 0)
	for _, f := range []*os.File{says, console, keys} {
		defer f.Close()
	}
	args, err4 := m.args(def)
	if err := errors.Join(err1, err2, err3, err4, ctx.Err()); err != nil {
		return err
	}
	// Where the host's kernel scatters addresses at random, this one counts the
	// gap as memory and needs up to 16 MiB to describe it.
	cmd := exec.Command("setarch", append([]string{"--addr-no-randomize", program}, args...)...)
	cmd.Dir = m.dir
	cmd.Stdout, cmd.Stderr = says, says
	cmd.ExtraFiles = []*os.File{keys, console, life} // 3, 4 and 5
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fault.Unavailable.Errorf("start %s: %w", program, err)
	}
	go cmd.Wait() // reaps it; how it ended stands in its log
	return nil
}

// args is the kernel's command line.
func (m machine) args(def driver.Definition) ([]string, error) {
	args := []string{
		"uml_dir=" + filepath.Dir(m.run), "umid=" + string(m.id),
		fmt.Sprintf("mem=%dM", def.Memory/estate.MiB),
		"con=null", "con0=fd:3,fd:4", // its console
		"ssl=null", "ssl1=pts", // a serial line for the guest agent
		"systemd.show_status=no",
	}
	for i, d := range def.Disks {
		path := m.path(d.Name + ".img")
		if d.File != nil {
			path = d.File.Path
		}
		flags := "d" // plain data: never a copy-on-write file that names another
		if d.ReadOnly {
			flags += "r"
		}
		args = append(args, fmt.Sprintf("ubd%d%s=%s,,%s", i, flags, path, d.Name))
	}
	if len(def.Disks) == 0 {
		return args, nil
	}
	first := m.path(def.Disks[0].Name + ".img")
	if f := def.Disks[0].File; f != nil {
		first = f.Path
	}
	part, err := rootPartition(first)
	if part == 0 {
		return append(args, "root=/dev/ubda", "rw"), err
	}
	return append(args, fmt.Sprintf("root=/dev/ubda%d", part), "rw", "init=/bin/sh", "--", "-c", agentThenInit), err
}

// agentThenInit starts a distribution with its guest agent: that of QEMU speaks
// on any serial line, and no unit of the distribution knows of ours. It waits
// for the init system, for whoever is answered may ask to power off.
const agentThenInit = `"(until [ -S /run/systemd/private ]; do sleep 1; done; ` +
	`exec qemu-ga -m isa-serial -p /dev/ttyS1 -t /dev -f /dev/qemu-ga.pid) & exec /sbin/init"`

// linuxRoot is the type of partition that holds the root of a Linux system on
// x86-64, 4f68bce3-e8cd-4db1-96e7-fbcaf984b709 (the Discoverable Partitions
// Specification), as it lies on disk.
var linuxRoot = []byte("\xe3\xbc\x68\x4f\xcd\xe8\xb1\x4d\x96\xe7\xfb\xca\xf9\x84\xb7\x09")

// rootPartition returns the number of the first such partition, or 0: then the
// disk is taken for a file system (UEFI 2.10, 5.3: the header is the second
// sector, the entries follow from the third).
func rootPartition(disk string) (int, error) {
	f, err := os.Open(disk)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	table := make([]byte, 34*512)
	if n, _ := f.ReadAt(table, 0); n < len(table) || string(table[512:520]) != "EFI PART" {
		return 0, nil
	}
	size := int(binary.LittleEndian.Uint32(table[512+84:]))
	for i, at := 1, 1024; size >= 128 && at+size <= len(table); i, at = i+1, at+size {
		if bytes.Equal(table[at:at+16], linuxRoot) {
			return i, nil
		}
	}
	return 0, nil
}

// await waits until the kernel answers, and records that it has started.
func (m machine) await(ctx context.Context) error {
	for m.power() != estate.Off {
		if _, err := m.tell(ctx, "version"); err == nil {
			r, err := m.read()
			if err != nil {
				return err
			}
			r.Starts = r.Starting
			return r.write(m.dir)
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
	b, err := os.ReadFile(m.path(kernelFile))
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	return errors.Join(err, fault.Internal.Errorf("the kernel of machine %s ended at once: %s", m.id, slices.Concat(lines[max(0, len(lines)-2):]...)))
}

// pull pulls the plug. One that is off is success.
func (m machine) pull(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if m.power() == estate.Off {
		return nil
	}
	short, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if _, err := m.tell(short, "halt"); err == nil && m.awaitEnd(short) == nil {
		return nil
	}
	// It is too young or too sick to listen. Its session's leader has its number
	// in a file; the lock says that the number is still its own.
	b, err := os.ReadFile(filepath.Join(m.run, "pid"))
	var leader int
	if _, e := fmt.Sscan(string(b), &leader); err == nil && e == nil && leader > 1 && m.power() != estate.Off {
		err = unix.Kill(-leader, unix.SIGKILL)
	}
	return errors.Join(err, m.awaitEnd(ctx))
}

// awaitEnd waits until nothing of the kernel is left.
func (m machine) awaitEnd(ctx context.Context) error {
	for m.power() != estate.Off {
		if err := pause(ctx); err != nil {
			return err
		}
	}
	return nil
}

// pause is between two looks at something that does not tell when it changes.
func pause(ctx context.Context) error {
	t := time.NewTimer(10 * time.Millisecond)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
