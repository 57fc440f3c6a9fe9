package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/guest/qga"
	"consort.dev/consort/hypervisor/driver"
)

// tell gives the kernel a command over its control socket and returns the
// answer. A message is a magic number, a version, a length and 512 bytes; an
// answer is an error, whether more comes, a length and as many bytes
// (arch/um/drivers/mconsole.h of Linux).
func (m machine) tell(ctx context.Context, command string) (string, error) {
	// An abstract address of our own (unix(7)), to which the answer comes.
	ours := &net.UnixAddr{Name: "@uml-provider-" + rand.Text(), Net: "unixgram"}
	conn, err := net.DialUnix("unixgram", ours, &net.UnixAddr{Name: filepath.Join(m.run, "mconsole"), Net: "unixgram"})
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(2 * time.Second))
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	message := make([]byte, 12+512)
	binary.NativeEndian.PutUint32(message, 0xcafebabe)
	binary.NativeEndian.PutUint32(message[4:], 2)
	binary.NativeEndian.PutUint32(message[8:], uint32(copy(message[12:], command)))
	if _, err := conn.Write(message); err != nil {
		return "", err
	}
	answer := make([]byte, 12+512)
	n, err := conn.Read(answer)
	if err != nil {
		return "", err
	}
	if n < 12 {
		return "", fault.Internal.Errorf("the kernel answers %d bytes to %q", n, command)
	}
	text := string(bytes.TrimRight(answer[12:n], "\x00"))
	if binary.NativeEndian.Uint32(answer) != 0 {
		return "", fault.Internal.Errorf("the kernel refuses %q: %s", command, text)
	}
	return text, nil
}

// Console implements driver.Consoler: all that the kernel wrote since it
// started, then what it writes; what is typed goes into its pipe.
func (h *Host) Console(ctx context.Context, id estate.MachineID) (io.ReadWriteCloser, error) {
	m, give, err := h.take(ctx, id)
	if err != nil {
		return nil, err
	}
	defer give()
	if _, err := m.read(); err != nil {
		return nil, err
	}
	if m.power() != estate.On {
		return nil, fault.Conflict.Errorf("machine %s is off; start it first", id)
	}
	says, err := os.Open(m.path(consoleFile))
	if err != nil {
		return nil, err
	}
	keys, err := os.OpenFile(m.path(keysFile), os.O_WRONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		says.Close()
		return nil, err
	}
	open, end := context.WithCancel(context.Background())
	return &console{m, says, keys, open, end}, nil
}

type console struct {
	m    machine
	says *os.File
	keys *os.File
	open context.Context // ends with Close
	end  context.CancelFunc
}

// Read implements io.Reader. It ends when the machine has.
func (c *console) Read(p []byte) (int, error) {
	for {
		lives := c.m.power() != estate.Off // asked first: then nothing is missed at the end
		if n, err := c.says.Read(p); n > 0 || err != io.EOF {
			return n, err
		}
		if !lives {
			return 0, io.EOF
		}
		if err := pause(c.open); err != nil {
			return 0, os.ErrClosed
		}
	}
}

// Write implements io.Writer.
func (c *console) Write(p []byte) (int, error) { return c.keys.Write(p) }

// Close implements io.Closer.
func (c *console) Close() error {
	c.end()
	c.says.Close()
	return c.keys.Close()
}

// agent returns the client of a guest's agent. One is kept for each machine, so
// that two commands do not talk at once on one line.
func (h *Host) agent(id estate.MachineID) *qga.Client {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.agents[id] == nil {
		m := h.machine(id)
		h.agents[id] = qga.New(func(ctx context.Context) (net.Conn, error) { return m.line(ctx) })
	}
	return h.agents[id]
}

// forget gives up the client of a machine that starts anew or goes.
func (h *Host) forget(id estate.MachineID) {
	h.mu.Lock()
	c := h.agents[id]
	delete(h.agents, id)
	h.mu.Unlock()
	if c != nil {
		c.Close()
	}
}

// line opens our end of the guest's second serial line: a terminal of the host,
// which the kernel names.
func (m machine) line(ctx context.Context) (net.Conn, error) {
	text, err := m.tell(ctx, "config ssl1")
	if err != nil {
		return nil, err
	}
	path, is := strings.CutPrefix(text, "pts:")
	if !is {
		return nil, fault.Unavailable.Errorf("the serial line is %q, not a terminal", text)
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	// Bytes pass as they are: no echo, no line endings, no signals.
	raw := &unix.Termios{Cflag: unix.CS8 | unix.CREAD | unix.CLOCAL | unix.B38400, Cc: [19]uint8{unix.VMIN: 1}}
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, raw); err != nil {
		f.Close()
		return nil, os.NewSyscallError("TCSETS", err)
	}
	return terminal{f}, nil
}

// terminal is a connection over a terminal: a file has all but the addresses.
type terminal struct{ *os.File }

// LocalAddr implements net.Conn.
func (t terminal) LocalAddr() net.Addr { return &net.UnixAddr{Name: t.Name()} }

// RemoteAddr implements net.Conn.
func (t terminal) RemoteAddr() net.Addr { return t.LocalAddr() }

// Run implements driver.Guest. It does not keep the machine's turn: a long
// command keeps nobody waiting.
func (h *Host) Run(ctx context.Context, id estate.MachineID, cmd driver.Command) (driver.Output, error) {
	m := h.machine(id)
	if _, err := m.read(); err != nil {
		return driver.Output{}, err
	}
	if m.power() != estate.On {
		return driver.Output{}, fault.Unavailable.Errorf("machine %s is off: no guest agent answers", id)
	}
	out, err := runFed(ctx, h.agent(id), cmd)
	return driver.Output(out), err
}

// mouthful is how much of a command's input goes over the line at once. A line
// on which 4 KiB wait is one that the guest's kernel listens to no more.
const mouthful = 2 << 10

// runFed runs a command. Input that is too much for the line is brought to a file
// first, in commands that each end before the next begins.
func runFed(ctx context.Context, agent *qga.Client, cmd driver.Command) (qga.Output, error) {
	if len(cmd.Stdin) <= mouthful {
		return agent.Run(ctx, cmd.Args, cmd.Stdin)
	}
	file := "/run/consort-input-" + rand.Text()
	for part := range slices.Chunk(cmd.Stdin, mouthful) {
		if out, err := agent.Run(ctx, []string{"sh", "-c", "umask 077; cat >> " + file}, part); err != nil || out.Exit != 0 {
			return out, err
		}
	}
	const run = `exec 3< "$0" && rm "$0" && exec "$@" <&3 3<&-`
	return agent.Run(ctx, append([]string{"sh", "-c", run, file}, cmd.Args...), nil)
}

// Measure implements driver.Meter. The kernel's processes are one session; time
// of those that have ended is in that of their parents.
func (h *Host) Measure(ctx context.Context, id estate.MachineID) (driver.Usage, error) {
	m, give, err := h.take(ctx, id)
	if err != nil {
		return driver.Usage{}, err
	}
	defer give()
	if _, err := m.read(); err != nil {
		return driver.Usage{}, err
	}
	leader, err := os.ReadFile(filepath.Join(m.run, "pid"))
	if err != nil || m.power() != estate.On {
		return driver.Usage{}, fault.Conflict.Errorf("machine %s is off; start it first", id)
	}
	u := driver.Usage{DiskRead: -1, DiskWritten: -1, Received: -1, Sent: -1}
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range files {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		// From the third field on (proc(5)): the session is the 6th, times in
		// hundredths of a second are the 14th to the 17th, resident pages the 24th.
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if len(f) < 22 || f[3] != strings.TrimSpace(string(leader)) {
			continue
		}
		for _, ticks := range f[11:15] {
			n, _ := strconv.ParseInt(ticks, 10, 64) // the kernel writes numbers
			u.CPU += time.Duration(n) * time.Second / 100
		}
		if path == fmt.Sprintf("/proc/%s/stat", f[3]) {
			pages, _ := strconv.ParseInt(f[21], 10, 64)
			u.Memory = estate.Bytes(pages * int64(os.Getpagesize()))
		}
	}
	return u, err
}
