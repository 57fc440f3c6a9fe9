package xen

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/guest/qga"
	"consort.dev/consort/hypervisor/driver"
)

// existing returns a machine that is defined, without its turn.
func (h *host) existing(id estate.MachineID) (*machine, error) {
	h.mu.Lock()
	m := h.machines[id]
	h.mu.Unlock()
	if m == nil || !m.defined() {
		return nil, unknown(id)
	}
	return m, nil
}

// running returns a machine that runs, without its turn.
func (h *host) running(ctx context.Context, id estate.MachineID) (*machine, error) {
	m, err := h.existing(id)
	if err == nil {
		err = m.mustBe(ctx, estate.On)
	}
	return m, err
}

// Console implements driver.Consoler.
func (h *host) Console(ctx context.Context, id estate.MachineID) (io.ReadWriteCloser, error) {
	if _, err := h.running(ctx, id); err != nil {
		return nil, err
	}
	return h.calls.Console(ctx, string(id), "")
}

// Watch implements driver.Watcher.
func (h *host) Watch(ctx context.Context, changed func(estate.MachineID)) error {
	return h.calls.Watch(ctx, func(uuid string) { changed(estate.MachineID(uuid)) })
}

// number returns Xen's own number of the running machine, another one at each
// power-on.
func (m *machine) number(ctx context.Context) (string, error) {
	text, err := m.host.calls.XML(ctx, string(m.id), true)
	if err != nil {
		return "", err
	}
	d, err := parse(text)
	if err != nil {
		return "", err
	}
	if d.ID == nil || *d.ID <= 0 { // 0 is the domain we run in
		return "", fault.Conflict.Errorf("machine %s is off; start it first", m.id)
	}
	return strconv.Itoa(*d.ID), nil
}

// Measure implements driver.Meter. libvirt knows the processors' time and the
// memory; the kernel of this domain counts what goes through cards, and through
// disks where it serves them itself.
func (h *host) Measure(ctx context.Context, id estate.MachineID) (driver.Usage, error) {
	m, err := h.running(ctx, id)
	if err != nil {
		return driver.Usage{}, err
	}
	number, err := m.number(ctx)
	if err != nil {
		return driver.Usage{}, err
	}
	info, err := h.calls.Info(ctx, string(id))
	if err != nil {
		return driver.Usage{}, err
	}
	// A backend counts sectors of 512 bytes (drivers/block/xen-blkback/xenbus.c).
	const sector = 512
	disks := "/sys/bus/xen-backend/devices/vbd-" + number + "-*/statistics/"
	cards := "/sys/class/net/vif" + number + ".*/statistics/"
	return driver.Usage{
		CPU:         time.Duration(info.Time),
		Memory:      estate.Bytes(info.Memory),
		DiskRead:    sum(disks+"rd_sect", sector),
		DiskWritten: sum(disks+"wr_sect", sector),
		Received:    sum(cards+"tx_bytes", 1), // what this end sends, the guest receives
		Sent:        sum(cards+"rx_bytes", 1),
	}, nil
}

// sum adds up what the counters say, in units; -1 where there are none, or one
// cannot be read.
func sum(counters string, unit int64) estate.Bytes {
	files, err := filepath.Glob(counters)
	if err != nil || len(files) == 0 {
		return -1
	}
	var total int64
	for _, f := range files {
		text, err := os.ReadFile(f)
		n, err2 := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		if err != nil || err2 != nil {
			return -1
		}
		total += n * unit
	}
	return estate.Bytes(total)
}

// agentSocket is where Xen's QEMU puts the channel to a guest's agent.
const agentSocket = "agent"

func (m *machine) dialAgent(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", filepath.Join(m.run, agentSocket))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("machine %s has no channel to an agent", m.id)
	}
	return conn, err
}

// Run implements driver.Guest.
func (h *host) Run(ctx context.Context, id estate.MachineID, cmd driver.Command) (driver.Output, error) {
	m, err := h.existing(id)
	if err != nil {
		return driver.Output{}, err
	}
	if err := m.mustBe(ctx, estate.On); err != nil {
		if ctx.Err() == nil {
			err = fault.Unavailable.Errorf("run a command in machine %s: %w", id, err)
		}
		return driver.Output{}, err
	}
	m.mu.Lock()
	agent := m.agent
	m.mu.Unlock()
	out, err := agent.Run(ctx, cmd.Args, cmd.Stdin)
	return driver.Output{Exit: out.Exit, Stdout: out.Stdout, Stderr: out.Stderr}, err
}

// hangUp ends the connection to the guest's agent; the next command makes
// another one.
func (m *machine) hangUp() {
	m.mu.Lock()
	agent := m.agent
	m.agent = qga.New(m.dialAgent)
	m.mu.Unlock()
	agent.Close()
}
