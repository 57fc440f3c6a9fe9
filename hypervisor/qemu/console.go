package qemu

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// replay is how much of what the machine wrote before a console was opened is
// kept and shown first.
const replay = 64 << 10

// serialMost is from which size on the console's log gives old bytes back to
// the file system. A guest can write for ever.
const serialMost = 1 << 20

// Console implements driver.Consoler. It begins with the last 64 KiB that the
// machine wrote. What the machine writes is read from the log that QEMU keeps,
// so that nothing written before is lost and nothing is told twice; what is
// typed goes through the socket, which also tells when the machine has gone.
func (h *Host) Console(ctx context.Context, id estate.MachineID) (io.ReadWriteCloser, error) {
	m, _, err := h.running(ctx, id)
	if err != nil {
		return nil, err
	}
	defer h.done(m)
	if m.record().Def.Sealed {
		return nil, fault.Unsupported.Errorf("machine %s is sealed: what it writes to its console is not kept, and cannot be shown", id)
	}
	m.mu.Lock()
	earlier := m.console
	m.console = nil
	m.mu.Unlock()
	if earlier != nil {
		earlier.Close()
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", filepath.Join(m.run, serialSocket))
	if err != nil {
		return nil, fault.Unavailable.Errorf("reach the console of machine %s: %w", id, err)
	}
	c, err := openConsole(conn, filepath.Join(m.dir, serialFile))
	if err != nil {
		conn.Close()
		return nil, err
	}
	m.mu.Lock()
	m.console = c
	m.mu.Unlock()
	return c, nil
}

// console is a connection to a machine's serial console.
type console struct {
	keys  net.Conn
	log   *os.File
	grows *os.File // an inotify descriptor: readable when the log has grown
}

func openConsole(conn net.Conn, path string) (*console, error) {
	log, err := openDisk(path, true)
	if err != nil {
		return nil, err
	}
	info, err := log.Stat()
	if err == nil {
		_, err = log.Seek(max(0, info.Size()-replay), io.SeekStart)
	}
	if err != nil {
		log.Close()
		return nil, err
	}
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		log.Close()
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	c := &console{keys: conn, log: log, grows: os.NewFile(uintptr(fd), "inotify")}
	if _, err := unix.InotifyAddWatch(fd, path, unix.IN_MODIFY); err != nil {
		c.grows.Close()
		log.Close()
		return nil, os.NewSyscallError("inotify_add_watch", err)
	}
	go func() {
		io.Copy(io.Discard, conn) // the log has it
		c.grows.Close()           // the machine has gone: what is left is read, then comes the end
	}()
	return c, nil
}

// Read implements io.Reader.
func (c *console) Read(p []byte) (int, error) {
	for {
		n, err := c.log.Read(p)
		if n > 0 || err != io.EOF {
			return n, err
		}
		var event [4096]byte
		if _, err := c.grows.Read(event[:]); err != nil {
			if n, _ := c.log.Read(p); n > 0 { // written between the two
				return n, nil
			}
			return 0, io.EOF
		}
	}
}

// Write implements io.Writer.
func (c *console) Write(p []byte) (int, error) { return c.keys.Write(p) }

// Close implements io.Closer. The machine runs on.
func (c *console) Close() error {
	c.keys.Close()
	c.grows.Close()
	c.log.Close()
	return nil
}

// trim gives the log's old bytes back, and leaves its length, so that readers
// keep their place.
func (m *machine) trim() {
	f, err := os.OpenFile(filepath.Join(m.dir, serialFile), os.O_WRONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return
	}
	defer f.Close()
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil || st.Blocks*512 < serialMost {
		return
	}
	// Without holes in this file system it grows on; that is all.
	unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, st.Size-replay)
}
