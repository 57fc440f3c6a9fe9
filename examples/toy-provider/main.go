// Command toy-provider is a hypervisor provider to read. Its machines are
// processes that sleep; a file for each remembers the rest.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io/fs"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/hypervisor/remote"
)

func main() {
	dir := flag.String("dir", "", "folder that remembers the machines")
	socket := flag.String("socket", "", "unix socket to serve on")
	flag.Parse()
	l, err := net.Listen("unix", *socket)
	if err == nil {
		err = remote.Serve(context.Background(), l, &host{dir: *dir})
	}
	log.Fatal(err)
}

// host implements driver.Host. Only one may use a folder at a time.
type host struct {
	dir string
	mu  sync.Mutex
}

// machine is what the file of a machine holds.
type machine struct {
	Def    driver.Definition
	Starts int64
	PID    int    // of its process, when it was last on
	Born   string // when that process began: numbers of processes come again
}

func (h *host) Describe(ctx context.Context) (driver.Description, error) {
	d := driver.Description{
		Provider: "toy", Product: "processes of " + runtime.GOOS, Accelerator: "none", Because: "Its machines only sleep.",
		Capacity:     estate.Capacity{CPUs: runtime.NumCPU(), Memory: estate.GiB, Disk: estate.GiB},
		Capabilities: []estate.CapabilityReport{{Name: estate.CanOutliveUs, Has: true}},
	}
	for _, c := range driver.Abilities() {
		d.Capabilities = append(d.Capabilities, estate.CapabilityReport{Name: c, Reason: "a machine that sleeps has none"})
	}
	return d, ctx.Err()
}

func (h *host) List(ctx context.Context) ([]driver.Machine, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var all []driver.Machine
	files, err := filepath.Glob(filepath.Join(h.dir, "*.json")) // sorted by name, which is the ID
	for _, file := range files {
		m, err := h.load(estate.MachineID(strings.TrimSuffix(filepath.Base(file), ".json")))
		if err != nil {
			return nil, err
		}
		power := estate.Off
		if m.alive() {
			power = estate.On
		}
		all = append(all, driver.Machine{ID: m.Def.ID, Power: power, Starts: m.Starts, Def: m.Def})
	}
	return all, err
}

func (h *host) Define(ctx context.Context, def driver.Definition) error {
	return h.change(ctx, def.ID, func(m *machine, err error) error {
		switch {
		case errors.Is(err, fault.NotFound):
			return h.save(&machine{Def: def})
		case err == nil && !m.Def.Equal(def):
			return fault.Exists.Errorf("machine %s exists with another definition", def.ID)
		}
		return err
	})
}

func (h *host) Start(ctx context.Context, id estate.MachineID) error {
	return h.change(ctx, id, func(m *machine, err error) error {
		if err != nil || m.alive() {
			return err
		}
		cmd := exec.Command("sleep", "infinity")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // it does not end with us
		if err := cmd.Start(); err != nil {
			return fault.Unavailable.Errorf("start machine %s: %w", id, err)
		}
		go cmd.Wait() // so that it leaves nothing behind
		m.Starts, m.PID, m.Born = m.Starts+1, cmd.Process.Pid, born(cmd.Process.Pid)
		return h.save(m)
	})
}

func (h *host) Stop(ctx context.Context, id estate.MachineID, grace time.Duration) error {
	return h.change(ctx, id, func(m *machine, err error) error {
		if err != nil {
			return err
		}
		return m.stop(ctx, grace)
	})
}

func (h *host) Delete(ctx context.Context, id estate.MachineID) error {
	return h.change(ctx, id, func(m *machine, err error) error {
		if errors.Is(err, fault.NotFound) {
			return nil
		}
		if err == nil {
			err = m.stop(ctx, 0)
		}
		if err == nil {
			err = os.Remove(h.file(id))
		}
		return err
	})
}

// change has do change a machine, or its absence, while nobody else does.
func (h *host) change(ctx context.Context, id estate.MachineID, do func(*machine, error) error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	return do(h.load(id))
}

func (h *host) file(id estate.MachineID) string { return filepath.Join(h.dir, string(id)+".json") }

func (h *host) load(id estate.MachineID) (*machine, error) {
	data, err := os.ReadFile(h.file(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.NotFound.Errorf("no machine %s", id)
	}
	m := new(machine)
	if err == nil {
		err = json.Unmarshal(data, m)
	}
	return m, err
}

// save writes the file as a whole or not at all.
func (h *host) save(m *machine) error {
	data, err := json.Marshal(m)
	draft := h.file(m.Def.ID) + ".new"
	if err == nil {
		err = os.WriteFile(draft, data, 0o600)
	}
	if err == nil {
		err = os.Rename(draft, h.file(m.Def.ID))
	}
	return err
}

func (m *machine) alive() bool { return m.PID != 0 && born(m.PID) == m.Born }

// stop asks the process to go, and after grace makes it.
func (m *machine) stop(ctx context.Context, grace time.Duration) error {
	for end := time.Now().Add(grace); m.alive(); time.Sleep(5 * time.Millisecond) {
		signal := syscall.SIGTERM
		if time.Now().After(end) {
			signal = syscall.SIGKILL
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := syscall.Kill(m.PID, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fault.Stuck.Errorf("stop process %d: %w", m.PID, err)
		}
	}
	return nil
}

// born returns when a process began, proc_pid_stat(5) field 22; nothing when it
// has ended.
func born(pid int) string {
	stat, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	_, rest, _ := strings.Cut(string(stat), ") ") // past the name, field 2
	f := strings.Fields(rest)
	if len(f) < 20 || f[0] == "Z" || f[0] == "X" {
		return "ended"
	}
	return f[19]
}
