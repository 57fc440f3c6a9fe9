// Package hyperv drives Microsoft Hyper-V through WinRM: typed requests go to
// versioned PowerShell scripts that answer in JSON. It is experimental: nobody
// has run it on Hyper-V yet.
package hyperv

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/internal/flock"
)

// experimental is said wherever the provider shows. It goes once someone has
// sent a report of 'consort hypervisor verify' from a real host.
const experimental = "experimental, never run on Hyper-V"

// Config says which host is driven, and where disks lie on their way to it.
type Config struct {
	// Endpoint is https://HOST[:5986][/wsman][?ca=FILE]; the file holds the
	// certificates that the host's is checked against, the system's when absent.
	Endpoint string
	// Credentials is a file with a user and a password, a line each, that nobody
	// but its owner may read.
	Credentials string
	// Dir holds disks while they are converted: room for the largest, twice.
	Dir string
	// ImageTool is qemu-img when empty.
	ImageTool string
}

// Host is a Hyper-V host. Open makes one.
type Host struct {
	cfg    Config
	remote *remote
	desc   driver.Description
	lock   *os.File
	turns  turns

	mu     sync.Mutex
	coming map[string]*arrival // volumes on their way home, by arrivalKey
}

var (
	_ driver.Host        = (*Host)(nil)
	_ driver.Transferer  = (*Host)(nil)
	_ driver.Snapshotter = (*Host)(nil)
	_ driver.Saver       = (*Host)(nil)
	_ driver.Resizer     = (*Host)(nil)
	_ driver.Meter       = (*Host)(nil)
	_ driver.Surveyor    = (*Host)(nil)
)

// Open connects to the host and asks what it is.
func Open(ctx context.Context, cfg Config) (*Host, error) {
	cfg.ImageTool = cmp.Or(cfg.ImageTool, "qemu-img")
	endpoint, roots, err := readEndpoint(cfg.Endpoint)
	if err != nil {
		return nil, err
	}
	user, password, err := readCredentials(cfg.Credentials)
	if err != nil {
		return nil, err
	}
	w, err := newWinRM(endpoint, user, password, roots)
	if err != nil {
		return nil, err
	}
	h := &Host{cfg: cfg, remote: &remote{winrm: w}, turns: turns{taken: map[string]*turn{}}, coming: map[string]*arrival{}}
	if err := h.claim(ctx); err != nil {
		return nil, err
	}
	var d described
	if err := h.remote.ask(ctx, "describe", describeRequest{}, &d); err != nil {
		h.Close()
		return nil, err
	}
	h.remote.store = d.Store
	h.desc = driver.Description{
		Provider:     "hyperv",
		Product:      d.Product + " (" + experimental + ")",
		Accelerator:  "hyper-v",
		Because:      "Hyper-V has no other. This provider is " + experimental + ".",
		Capacity:     estate.Capacity{CPUs: d.CPUs, Memory: estate.Bytes(d.Memory), Disk: estate.Bytes(d.Disk)},
		Capabilities: capabilities(),
	}
	return h, nil
}

// claim makes the folder of passing disks ours, and empty.
func (h *Host) claim(ctx context.Context) error {
	if err := os.MkdirAll(h.cfg.Dir, 0o700); err != nil {
		return err
	}
	f, err := flock.Take(ctx, filepath.Join(h.cfg.Dir, "lock"))
	if errors.Is(err, flock.ErrHeld) {
		return fault.Busy.Errorf("%s is in another process's hands: stop it, or give another folder", h.cfg.Dir)
	}
	if err != nil {
		return err
	}
	h.lock = f
	left, err := filepath.Glob(filepath.Join(h.cfg.Dir, passing+"*"))
	for _, path := range left {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

// Close ends our shells on the host. Its machines run on.
func (h *Host) Close() error {
	h.remote.winrm.close()
	return h.lock.Close()
}

// readEndpoint takes the file of certificates out of the endpoint's query.
func readEndpoint(text string) (endpoint string, roots *x509.CertPool, err error) {
	u, err := url.Parse(text)
	if err != nil {
		return "", nil, fault.Invalid.Errorf("the endpoint is no URL: write https://HOST:5986/wsman")
	}
	q := u.Query()
	ca := q.Get("ca")
	if q.Del("ca"); len(q) > 0 {
		return "", nil, fault.Invalid.Errorf("endpoint %s: its query may hold only ca=FILE", u.Redacted())
	}
	if u.RawQuery = ""; ca == "" {
		return u.String(), nil, nil
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return "", nil, fault.Invalid.Errorf("read the certificates: %w", err)
	}
	roots = x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return "", nil, fault.Invalid.Errorf("%s: no certificates in it; export the host's as Base-64 encoded X.509", ca)
	}
	return u.String(), roots, nil
}

// readCredentials reads a user and a password. Errors never say what is in them.
func readCredentials(path string) (user, password string, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", "", fault.Invalid.Errorf("read the credentials: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", "", fault.Invalid.Errorf("others may read the credentials in %s; chmod 600 it", path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", "", fault.Invalid.Errorf("read the credentials: %w", err)
	}
	lines := strings.Split(strings.ReplaceAll(strings.TrimRight(string(text), "\r\n"), "\r\n", "\n"), "\n")
	if len(lines) != 2 || lines[0] == "" || lines[1] == "" {
		return "", "", fault.Invalid.Errorf("the credentials in %s are not a user and a password, a line each", path)
	}
	return lines[0], lines[1], nil
}

func capabilities() []estate.CapabilityReport {
	has := func(c estate.Capability, value, weaker string) estate.CapabilityReport {
		reason := experimental
		if weaker != "" {
			reason += "; " + weaker
		}
		return estate.CapabilityReport{Name: c, Has: true, Value: value, Reason: reason}
	}
	lacks := func(c estate.Capability, reason string) estate.CapabilityReport {
		return estate.CapabilityReport{Name: c, Reason: reason}
	}
	return []estate.CapabilityReport{
		has(estate.CanTransfer, "", "disks go through WinRM, a few MiB a second; shelving folds snapshots into the disks"),
		has(estate.CanSnapshot, "", "checkpoints of machines that are off"),
		has(estate.CanSave, "", ""),
		has(estate.CanResize, "", ""),
		has(estate.CanMeasure, "", "disks and network in whole MiB"),
		has(estate.CanSurvey, "", ""),
		has(estate.CanNetwork, "name", "the operator makes the virtual switch"),
		has(estate.CanOutliveUs, "", ""),
		has(estate.NeedsDrivers, "vmbus", ""),
		lacks(estate.CanDisplay, "Hyper-V offers its console only through its own RDP port 2179; serve the desktop from the guest"),
		lacks(estate.CanConsole, "a serial port is a named pipe that only the host itself can open"),
		lacks(estate.CanGuest, "Hyper-V runs no commands in a Linux guest: its guest service copies files only, and PowerShell Direct is for Windows with its own credentials"),
		lacks(estate.CanHotplug, "not built yet: an attached disk has no serial number that the guest could tell it by"),
		lacks(estate.CanWatch, "not built yet: machines are listed again and again"),
		lacks(estate.CanMoveLive, "not built yet: Hyper-V moves only between hosts that trust each other"),
		lacks(estate.CanFilter, "not built yet"),
		lacks(estate.CanInstant, "not built yet"),
		lacks(estate.CanEncryptDisk, "not built yet"),
	}
}

// Describe implements driver.Host.
func (h *Host) Describe(ctx context.Context) (driver.Description, error) {
	d := h.desc
	d.Capabilities = slices.Clone(d.Capabilities)
	return d, ctx.Err()
}

// List implements driver.Host.
func (h *Host) List(ctx context.Context) ([]driver.Machine, error) {
	var all listed
	if err := h.remote.ask(ctx, "list", listRequest{}, &all); err != nil {
		return nil, err
	}
	var ms []driver.Machine
	for _, l := range all.Machines {
		if l.State == "" {
			continue // shelved, or a definition that was cut
		}
		ms = append(ms, l.machine())
	}
	slices.SortFunc(ms, func(a, b driver.Machine) int { return cmp.Compare(a.ID, b.ID) })
	return ms, nil
}

// machine returns what callers may know of a machine. One without a record is
// not hidden, and nothing is done to it.
func (l listedMachine) machine() driver.Machine {
	rec, err := l.record()
	if err != nil {
		return driver.Machine{ID: l.ID, Power: estate.PowerUnknown, Def: driver.Definition{ID: l.ID}}
	}
	m := driver.Machine{ID: l.ID, Power: power(l.State), Starts: l.starts(), Def: rec.Def}
	if m.Power == estate.On {
		m.Started, _ = time.Parse(time.RFC3339Nano, l.Started) // zero where it is unknown
	}
	return m
}

// power says what a state of Hyper-V's means (Microsoft.HyperV.PowerShell.VMState).
// Saved is off, as Save promises; Paused is on, for its memory is in place. All
// that is on its way, or critical, is unknown.
func power(state string) estate.Power {
	switch state {
	case "Running", "Paused":
		return estate.On
	case "Off", "Saved":
		return estate.Off
	}
	return estate.PowerUnknown
}

// starts counts a power-on whose script was cut after it had been done.
func (l listedMachine) starts() int64 {
	if power(l.State) == estate.On {
		return max(l.Starts, l.Starting)
	}
	return l.Starts
}

// record is what we know of a machine beyond what Hyper-V tells. It lies beside
// the machine's disks on the host.
type record struct {
	Def     driver.Definition
	Adopted bool            `json:",omitempty"`
	Disks   map[string]kept // of those that we made
	Synced  int64           // power-ons before the volumes were last written back
}

// kept is a disk in our store.
type kept struct {
	N    int    // counts its files: an import makes another
	Make string // as in diskSpec
}

func (l listedMachine) record() (record, error) {
	var r record
	if l.Record == "" {
		return record{}, fault.Stuck.Errorf("the record of machine %s is lost; restore machine.json in its folder on the host", l.ID)
	}
	if err := json.Unmarshal([]byte(l.Record), &r); err != nil {
		return record{}, fault.Stuck.Errorf("read the record of machine %s: %w; restore machine.json in its folder on the host", l.ID, err)
	}
	return r, nil
}

// text is the record as it is stored.
func (r record) text() string {
	b, err := json.Marshal(r)
	if err != nil {
		panic(err) // a record is made of strings and numbers
	}
	return string(b)
}

// turns lets one call at a time work on a machine, or on a base.
type turns struct {
	mu    sync.Mutex
	taken map[string]*turn
}

type turn struct {
	free  chan struct{}
	users int
}

// take waits for the turn; the caller gives it back.
func (t *turns) take(ctx context.Context, what string) (give func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t.mu.Lock()
	one := t.taken[what]
	if one == nil {
		one = &turn{free: make(chan struct{}, 1)}
		one.free <- struct{}{}
		t.taken[what] = one
	}
	one.users++
	t.mu.Unlock()
	leave := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if one.users--; one.users == 0 {
			delete(t.taken, what)
		}
	}
	select {
	case <-one.free:
		return func() { one.free <- struct{}{}; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}
