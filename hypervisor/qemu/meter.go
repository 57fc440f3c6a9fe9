package qemu

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/internal/qmp"
)

// flow is bytes that went two ways: read and written by a disk's guest,
// received and sent through its cards.
type flow struct{ In, Out estate.Bytes }

// Measure implements driver.Meter. The kernel tells of the process and the
// cards, QEMU of the disks.
func (h *Host) Measure(ctx context.Context, id estate.MachineID) (driver.Usage, error) {
	m, c, err := h.running(ctx, id)
	if err != nil {
		return driver.Usage{}, err
	}
	defer h.done(m)
	var u driver.Usage
	if u.CPU, u.Memory, err = m.process(); err != nil {
		return driver.Usage{}, err
	}
	disks, err := diskCounts(ctx, c)
	if err != nil {
		return driver.Usage{}, err
	}
	r := m.record()
	u.DiskRead, u.DiskWritten = r.Gone.In, r.Gone.Out
	for _, d := range disks {
		u.DiskRead, u.DiskWritten = u.DiskRead+d.In, u.DiskWritten+d.Out
	}
	u.Received, u.Sent = -1, -1
	if now, ok := cardCounts(r.Def.NICs); ok && r.Cards != nil {
		u.Received, u.Sent = now.In-r.Cards.In, now.Out-r.Cards.Out
	}
	return u, nil
}

// ticks is how many clock ticks of /proc/PID/stat are a second: USER_HZ, which
// is 100 on every platform we run on (proc(5), sysconf(3)).
const ticks = 100

// process returns the time and memory of the machine's process.
func (m *machine) process() (cpu time.Duration, memory estate.Bytes, err error) {
	pid, err := m.pid()
	if err != nil {
		return 0, 0, err
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	// A number used anew would be another's: ours lives, so its number is its own.
	if lives, err := alive(m.dir); err != nil || !lives {
		return 0, 0, fault.Conflict.Errorf("machine %s has powered off", m.id)
	}
	return parseStat(stat)
}

// parseStat reads /proc/PID/stat (proc(5)): user and system time are its fields
// 14 and 15, resident pages 24. The name, in parentheses, may hold anything.
func parseStat(stat []byte) (cpu time.Duration, memory estate.Bytes, err error) {
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:]) // from field 3 on
	if len(fields) < 22 {
		return 0, 0, fault.Internal.Errorf("/proc/PID/stat has %d fields after the name", len(fields))
	}
	var n [3]int64
	for i, field := range []int{14, 15, 24} {
		if n[i], err = strconv.ParseInt(string(fields[field-3]), 10, 64); err != nil {
			return 0, 0, fault.Internal.Errorf("/proc/PID/stat: %w", err)
		}
	}
	return time.Duration(n[0]+n[1]) * time.Second / ticks, estate.Bytes(n[2]) * estate.Bytes(os.Getpagesize()), nil
}

// diskCounts returns what the guest has read and written, by device.
func diskCounts(ctx context.Context, c *qmp.Client) (map[string]flow, error) {
	var all []struct {
		Device string `json:"qdev"` // /machine/peripheral/NAME/virtio-backend
		Stats  struct {
			Read    int64 `json:"rd_bytes"`
			Written int64 `json:"wr_bytes"`
		} `json:"stats"`
	}
	if err := c.Execute(ctx, "query-blockstats", nil, &all); err != nil {
		return nil, err
	}
	counts := map[string]flow{}
	for _, d := range all {
		name, _, _ := strings.Cut(strings.TrimPrefix(d.Device, "/machine/peripheral/"), "/")
		counts[name] = flow{estate.Bytes(d.Stats.Read), estate.Bytes(d.Stats.Written)}
	}
	return counts, nil
}

// cardCounts returns what the cards have received and sent since their tap
// devices were made; ok is false where a card has none.
func cardCounts(nics []driver.NIC) (sum flow, ok bool) {
	for _, n := range nics {
		if n.Tap == "" {
			return flow{}, false
		}
		c, err := tapCount(n)
		if err != nil {
			return flow{}, false
		}
		sum.In, sum.Out = sum.In+c.In, sum.Out+c.Out
	}
	return sum, true
}

// tapCount reads the counters of a tap device in its namespace. What the device
// receives its guest has sent.
func tapCount(n driver.NIC) (flow, error) {
	type read struct {
		text []byte
		err  error
	}
	done := make(chan read, 1)
	go func() {
		runtime.LockOSThread() // see openNIC
		err := enter(n.Netns)
		var text []byte
		if err == nil {
			text, err = os.ReadFile(fmt.Sprintf("/proc/self/task/%d/net/dev", unix.Gettid()))
		}
		done <- read{text, err}
	}()
	r := <-done
	if r.err != nil {
		return flow{}, r.err
	}
	return parseDev(r.text, n.Tap)
}

// parseDev finds a device in /proc/net/dev: its name, then bytes received first
// and bytes sent ninth (proc(5)).
func parseDev(text []byte, device string) (flow, error) {
	for line := range strings.Lines(string(text)) {
		name, rest, _ := strings.Cut(line, ":")
		fields := strings.Fields(rest)
		if strings.TrimSpace(name) != device || len(fields) < 9 {
			continue
		}
		received, err1 := strconv.ParseInt(fields[0], 10, 64)
		sent, err2 := strconv.ParseInt(fields[8], 10, 64)
		if err1 != nil || err2 != nil {
			break
		}
		return flow{In: estate.Bytes(sent), Out: estate.Bytes(received)}, nil
	}
	return flow{}, fault.NotFound.Errorf("no counters of network device %s", device)
}
