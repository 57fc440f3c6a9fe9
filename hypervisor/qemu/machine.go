package qemu

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/guest/qga"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/internal/atomicfile"
	"consort.dev/consort/internal/luks"
	"consort.dev/consort/internal/qmp"
)

// machine is one machine of a host. Who changes it holds its turn; who only
// looks holds mu.
type machine struct {
	host *Host
	id   estate.MachineID
	dir  string // its record and its disks
	run  string // its sockets
	turn chan struct{}

	mu      sync.Mutex
	defined bool
	rec     record
	control *qmp.Client // nil while not connected
	peer    int         // the process at its other end
	agent   *qga.Client
	console *console  // the last one opened; nil before
	key     *luks.Key // of a sealed machine; nil once it is lost
}

func (h *Host) newMachine(id estate.MachineID) *machine {
	m := &machine{
		host: h,
		id:   id,
		dir:  filepath.Join(h.cfg.Dir, string(id)),
		run:  filepath.Join(h.cfg.RunDir, string(id)),
		turn: make(chan struct{}, 1),
	}
	m.agent = qga.New(m.dialAgent)
	m.turn <- struct{}{}
	return m
}

func (m *machine) take(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case <-m.turn:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *machine) give() { m.turn <- struct{}{} }

func (m *machine) isDefined() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.defined
}

func (m *machine) uid() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rec.UID
}

// record returns what is recorded now.
func (m *machine) record() record {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rec
}

// save records r, on disk first.
func (m *machine) save(r record) error {
	if err := r.write(m.dir); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rec = r
	m.host.news.tell(m.id)
	return nil
}

// look returns what callers may know of the machine; ok is false where it is
// not defined. It never waits for the machine's turn.
func (m *machine) look(ctx context.Context) (seen driver.Machine, ok bool) {
	m.mu.Lock()
	r, defined := m.rec, m.defined
	m.mu.Unlock()
	if !defined {
		return driver.Machine{}, false
	}
	seen = driver.Machine{ID: m.id, Power: m.power(ctx), Starts: r.Starts, Def: r.Def}
	if seen.Power == estate.On {
		m.trim()
		r = m.record() // connecting may have completed a power-on
		seen.Starts, seen.Started = r.Starts, r.Started
		if r.Paused {
			seen.Power = estate.Paused
		}
	}
	return seen, true
}

// lookLimit bounds the wait for one machine that does not answer.
const lookLimit = time.Second

// power says whether the machine runs. One whose process lives and does not
// answer may be on its way up or down, or hang: that is unknown.
func (m *machine) power(ctx context.Context) estate.Power {
	if m.controller() != nil {
		return estate.On
	}
	lives, err := alive(m.dir)
	switch {
	case err != nil:
		return estate.PowerUnknown
	case !lives:
		return estate.Off
	}
	select {
	case <-m.turn: // nobody is busy with it: see whether it answers
	default:
		return estate.PowerUnknown
	}
	defer m.give()
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	if m.connect(ctx) != nil {
		return estate.PowerUnknown
	}
	return estate.On
}

// controller returns the connection to the machine, or nil where there is none.
func (m *machine) controller() *qmp.Client {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.control == nil {
		return nil
	}
	select {
	case <-m.control.Done():
		m.control = nil
	default:
	}
	return m.control
}

// connect takes up the machine's running process: it must say that it is this
// machine. Callers hold the turn. It also finishes or undoes what was cut short.
func (m *machine) connect(ctx context.Context) error {
	if m.controller() != nil {
		return nil
	}
	if lives, err := alive(m.dir); err != nil || !lives {
		return errors.Join(errOff, err)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", filepath.Join(m.run, qmpSocket))
	if err != nil {
		return err
	}
	peer, err := peerOf(conn.(*net.UnixConn))
	if err != nil {
		conn.Close()
		return err
	}
	c, err := qmp.New(ctx, conn)
	if err != nil {
		return err
	}
	var who struct {
		UUID estate.MachineID `json:"UUID"`
	}
	if err := c.Execute(ctx, "query-uuid", nil, &who); err != nil {
		c.Close()
		return err
	}
	if who.UUID != m.id {
		c.Close()
		return fault.Stuck.Errorf("the process that answers for machine %s says it is %s", m.id, who.UUID)
	}
	if err := errors.Join(m.unplug(ctx, c), m.settle(ctx, c, peer)); err != nil {
		c.Close()
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.control, m.peer = c, peer
	m.host.news.tell(m.id)
	go m.awaitPowerOff(c)
	return nil
}

var errOff = errors.New("the machine is off")

// disconnect lets go of the machine's process, which runs on.
func (m *machine) disconnect() {
	m.mu.Lock()
	c, agent := m.control, m.agent
	m.control = nil
	m.agent = qga.New(m.dialAgent)
	m.mu.Unlock()
	agent.Close()
	if c != nil {
		c.Close()
	}
}

// tidy settles what a crash of ours left open, before anybody uses the machine.
func (m *machine) tidy() error {
	r := m.rec
	lives, err := alive(m.dir)
	if err != nil {
		return err
	}
	// Its process writes the pid file first thing, and we remove it before every
	// power-on: where it lies, the last one happened, even if it is over. Saved
	// memory that is still recorded was not brought back to life.
	if _, err := os.Stat(filepath.Join(m.run, pidFile)); err == nil && !lives && r.Starts != r.Starting && r.Saved == nil {
		r.Starts = r.Starting
		if err := m.save(r); err != nil {
			return err
		}
	}
	return m.sweep()
}

// sweep removes from the machine's folder what the record does not speak of.
// Whoever takes a file out of the record calls it; so does Open after a crash.
func (m *machine) sweep() error {
	keep := m.record().files()
	entries, err := os.ReadDir(m.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !keep[e.Name()] {
			if err := os.Remove(filepath.Join(m.dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// pid returns the number of the machine's process as the kernel knows it: who
// listens on its control socket. While somebody is connected, nobody else may
// get through to ask, so that whom we found then is remembered.
func (m *machine) pid() (int, error) {
	if m.controller() == nil {
		conn, err := net.DialTimeout("unix", filepath.Join(m.run, qmpSocket), quitLimit)
		if err != nil {
			return 0, err
		}
		defer conn.Close()
		return peerOf(conn.(*net.UnixConn))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.peer, nil
}

// peerOf returns the process at the other end.
func peerOf(conn *net.UnixConn) (pid int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var peer *unix.Ucred
	e := raw.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(e, err); err != nil {
		return 0, err
	}
	return int(peer.Pid), nil
}

// Define implements driver.Host. The machine is made in a folder of another
// name, so that it is there wholly or not at all.
func (h *Host) Define(ctx context.Context, def driver.Definition) error {
	m, err := h.machine(ctx, def.ID)
	if err != nil {
		return err
	}
	defer h.done(m)
	if m.isDefined() {
		if !m.record().Def.Equal(def) {
			return fault.Exists.Errorf("machine %s exists with another definition", def.ID)
		}
		return nil
	}
	if found, err := m.unshelve(def); found || err != nil {
		return err
	}
	return m.make(ctx, def)
}

// make makes the machine and its disks. Callers hold the turn.
func (m *machine) make(ctx context.Context, def driver.Definition) error {
	h := m.host
	tmp := filepath.Join(h.cfg.Dir, making+string(def.ID))
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	defer os.RemoveAll(tmp) // it is gone when all went well
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return err
	}
	uid, err := h.reserveUID(m)
	if err != nil {
		return err
	}
	r, err := h.parts(ctx, def, tmp)
	if err != nil {
		return err
	}
	r.UID = uid
	var key *luks.Key
	if def.Sealed {
		k := luks.NewKey()
		key, r.Key = &k, k.ID()
		if err := sealDisks(tmp, r, key); err != nil {
			return err
		}
	}
	if err := r.write(tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, m.dir); err != nil {
		return err
	}
	m.known(r)
	m.mu.Lock()
	m.key = key
	m.mu.Unlock()
	return atomicfile.SyncDir(h.cfg.Dir)
}

// parts makes what a machine consists of in a folder, and returns its record.
func (h *Host) parts(ctx context.Context, def driver.Definition, dir string) (r record, err error) {
	if def.Template != "" {
		return h.begin(def, dir)
	}
	r = record{Def: def, Copies: map[string]copied{}}
	for _, d := range def.Disks {
		if d.File != nil {
			continue
		}
		if r.Copies[d.Name], err = h.private(ctx, dir, d); err != nil {
			return r, err
		}
	}
	if def.Firmware == estate.UEFI {
		vars, err := os.ReadFile(filepath.Join(h.cfg.Firmware, "OVMF_VARS_4M.fd"))
		if err != nil {
			return r, fault.Unsupported.Errorf("UEFI firmware for machine %s: %w; install Debian's ovmf", def.ID, err)
		}
		if err := atomicfile.Write(filepath.Join(dir, varsFile), vars, 0o600); err != nil {
			return r, err
		}
	}
	return r, nil
}

// Delete implements driver.Host. The folder is renamed before it is removed: a
// machine that has lost some of its disks must never be taken for one.
func (h *Host) Delete(ctx context.Context, id estate.MachineID) error {
	m, err := h.machine(ctx, id)
	if err != nil {
		return err
	}
	defer h.done(m)
	dir, gone := m.dir, filepath.Join(h.cfg.Dir, removing+string(id))
	if m.isDefined() {
		err = m.stop(ctx, 0)
	} else {
		dir = m.shelf()
	}
	if err != nil {
		return err
	}
	m.loseKey()                                // first: what is left of its disks then is nobody's to read
	if err := os.RemoveAll(gone); err != nil { // what an earlier call could not remove
		return err
	}
	if err := os.Rename(dir, gone); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	m.forgotten()
	if err := atomicfile.SyncDir(h.cfg.Dir); err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(gone), os.RemoveAll(m.run))
}

// logTail returns the last line the machine's process wrote, for people.
func (m *machine) logTail() string {
	b, err := os.ReadFile(filepath.Join(m.dir, logFile))
	if err != nil {
		return "it left no word"
	}
	lines := strings.Split(strings.TrimSpace(string(b[max(0, len(b)-2000):])), "\n")
	return lines[len(lines)-1]
}
