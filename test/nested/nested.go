// Package nested gives tests hypervisor hosts that are real: Xen, and KVM, each
// with its libvirtd, run by QEMU's software on this machine. Neither needs a
// processor that virtualises.
//
// A host is made from Debian's packages once, booted once, and from then on
// taken up from its saved state in seconds.
package nested

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"consort.dev/consort/test/guest"
)

// Host is a running host. It ends with the test that asked for it.
type Host struct {
	*process
	image string
}

// bootLimit and takeUpLimit bound what takes a fifth of them on a quiet machine
// of two processors.
const (
	bootLimit   = 6 * time.Minute
	takeUpLimit = 2 * time.Minute
)

// Xen returns a host that runs Xen 4.17.
func Xen(t testing.TB) *Host { return begin(t, xen) }

// KVM returns a host that runs KVM.
func KVM(t testing.TB) *Host { return begin(t, kvm) }

// begin returns a host of its own for the test. It skips where none can be had.
func begin(t testing.TB, k kind) *Host {
	t.Helper()
	guest.Needs(t, "qemu-img", "unshare", "apt-get")
	h, err := takeUp(t.Context(), k, guest.Cache(t), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.kill)
	return h
}

// takeUp returns a host from its saved state, which it makes first when the
// cache does not have it.
func takeUp(ctx context.Context, k kind, cache, dir string) (*Host, error) {
	image, err := built(ctx, cache)
	if err != nil {
		return nil, err
	}
	state := filepath.Join(image, k.state())
	if err := saved(ctx, k, image, state); err != nil {
		return nil, fmt.Errorf("boot the %s host: %w", k, err)
	}
	p, err := launch(ctx, k, image, filepath.Join(state, "disk.qcow2"), filepath.Join(state, "memory"), dir)
	if err != nil {
		return nil, err
	}
	h := &Host{p, image}
	ctx, cancel := context.WithTimeout(ctx, takeUpLimit)
	defer cancel()
	// It wakes at the time at which it was saved.
	if err := h.await(ctx, "date", "-s", fmt.Sprintf("@%d", time.Now().Unix())); err != nil {
		h.kill()
		return nil, h.explain(err)
	}
	return h, nil
}

// saved boots a host and saves its state in a folder, unless it is there.
func saved(ctx context.Context, k kind, image, dir string) error {
	unlock, err := hold(dir + ".lock")
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	tmp := dir + ".new"
	if err := errors.Join(os.RemoveAll(tmp), os.Mkdir(tmp, 0o755)); err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	ctx, cancel := context.WithTimeout(ctx, bootLimit)
	defer cancel()
	p, err := launch(ctx, k, image, filepath.Join(image, "disk.qcow2"), "", tmp)
	if err != nil {
		return err
	}
	h := &Host{p, image}
	if err := h.await(ctx, "sh", "-c", "until [ -e /run/ready ]; do sleep 0.2; done; sync"); err != nil {
		p.kill()
		return p.explain(err)
	}
	if err := p.save(ctx, filepath.Join(tmp, "memory")); err != nil {
		p.kill()
		return p.explain(err)
	}
	return os.Rename(tmp, dir)
}

// await runs a command as soon as the porter answers.
func (h *Host) await(ctx context.Context, args ...string) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		out, err := h.Run(ctx, nil, args...)
		if err == nil && out.Exit != 0 {
			return fmt.Errorf("%s: exit %d: %s", args[0], out.Exit, out.Stderr)
		}
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-h.ended:
			return errors.New("the nested host ended")
		case <-ctx.Done():
			return fmt.Errorf("the nested host does not answer: %w", errors.Join(ctx.Err(), err))
		}
	}
}

// Output is what a command inside the host left behind.
type Output struct {
	Exit   int
	Stdout []byte
	Stderr []byte
}

// question and reply are what the porter reads and says; see its source.
type question struct {
	Run  []string `json:",omitempty"`
	Put  string   `json:",omitempty"`
	Mode uint32   `json:",omitempty"`
	Size int64    `json:",omitempty"`
	Dial []string `json:",omitempty"`
}

type reply struct {
	Output
	Error string
}

// ask opens a connection to the porter and sends a question with what follows.
func (h *Host) ask(ctx context.Context, q question, follow func(io.Writer) error) (net.Conn, *bufio.Reader, reply, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", "127.0.0.1:"+h.port)
	if err != nil {
		return nil, nil, reply{}, err
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	fail := func(err error) (net.Conn, *bufio.Reader, reply, error) {
		conn.Close()
		return nil, nil, reply{}, errors.Join(err, ctx.Err())
	}
	if err := json.NewEncoder(conn).Encode(q); err != nil {
		return fail(err)
	}
	if follow != nil {
		if err := follow(conn); err != nil {
			return fail(err)
		}
	}
	r := bufio.NewReader(conn)
	line, err := r.ReadBytes('\n')
	if err != nil {
		return fail(fmt.Errorf("the porter says nothing: %w", err))
	}
	var a reply
	if err := json.Unmarshal(line, &a); err != nil {
		return fail(err)
	}
	if a.Error != "" {
		return fail(errors.New(a.Error))
	}
	return conn, r, a, nil
}

// Run runs a command inside the host and waits for it; when ctx ends it is
// killed. A command that exits unequal to zero is no error.
func (h *Host) Run(ctx context.Context, stdin []byte, args ...string) (Output, error) {
	conn, _, a, err := h.ask(ctx, question{Run: args, Size: int64(len(stdin))}, func(w io.Writer) error {
		_, err := w.Write(stdin)
		return err
	})
	if err != nil {
		return Output{}, fmt.Errorf("run %s in the nested host: %w", args[0], err)
	}
	conn.Close()
	return a.Output, nil
}

// Must runs a command that has to succeed and returns what it printed.
func (h *Host) Must(t testing.TB, args ...string) string {
	t.Helper()
	out, err := h.Run(t.Context(), nil, args...)
	if err != nil {
		t.Fatal(err)
	}
	if out.Exit != 0 {
		t.Fatalf("%q: exit %d: %s%s", args, out.Exit, out.Stdout, out.Stderr)
	}
	return string(out.Stdout)
}

// Put copies a file into the host. Blocks of zeros become holes.
func (h *Host) Put(ctx context.Context, from, to string, mode os.FileMode) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return h.put(ctx, f, info.Size(), to, mode)
}

// Write writes a file inside the host.
func (h *Host) Write(ctx context.Context, data []byte, to string, mode os.FileMode) error {
	return h.put(ctx, bytes.NewReader(data), int64(len(data)), to, mode)
}

func (h *Host) put(ctx context.Context, r io.Reader, size int64, to string, mode os.FileMode) error {
	conn, _, _, err := h.ask(ctx, question{Put: to, Mode: uint32(mode), Size: size}, func(w io.Writer) error {
		return pieces(bufio.NewWriterSize(w, 1<<20), r)
	})
	if err != nil {
		return fmt.Errorf("copy %s into the nested host: %w", to, err)
	}
	return conn.Close()
}

// pieces sends what r yields but zeros, as the porter wants it.
func pieces(w *bufio.Writer, r io.Reader) error {
	block, zero := make([]byte, 64<<10), make([]byte, 64<<10)
	for at := int64(0); ; {
		n, err := io.ReadFull(r, block)
		if n > 0 && !bytes.Equal(block[:n], zero[:n]) {
			if err := binary.Write(w, binary.BigEndian, [2]int64{at, int64(n)}); err != nil {
				return err
			}
			if _, err := w.Write(block[:n]); err != nil {
				return err
			}
		}
		at += int64(n)
		switch {
		case err == nil:
			continue
		case !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
			return err
		}
		return errors.Join(binary.Write(w, binary.BigEndian, [2]int64{}), w.Flush())
	}
}

// Dial connects to an address inside the host: "unix" and a path, or "tcp" and
// 127.0.0.1 with a port.
func (h *Host) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, r, _, err := h.ask(ctx, question{Dial: []string{network, address}}, nil)
	if err != nil {
		return nil, fmt.Errorf("dial %s in the nested host: %w", address, err)
	}
	return &carried{conn, r}, nil
}

// carried is a connection some bytes of which have been read already.
type carried struct {
	net.Conn
	r *bufio.Reader
}

func (c *carried) Read(b []byte) (int, error) { return c.r.Read(b) }

// CloseWrite says that nothing more will be written.
func (c *carried) CloseWrite() error { return c.Conn.(*net.TCPConn).CloseWrite() }

// Expose makes a port of the host reachable from other nested hosts, and returns
// the address that they dial.
func (h *Host) Expose(t testing.TB, port int) string {
	t.Helper()
	at, err := h.forward(t.Context(), port)
	if err != nil {
		t.Fatal(err)
	}
	return "10.0.2.2:" + at // this machine, as QEMU's user network shows it
}

// TinyLoaders is a folder in the host. GRUB for Xen from there boots the small
// guest at once, whatever the disk holds.
const TinyLoaders = "/usr/local/lib/tiny-loaders"

// Tiny returns the disk, raw, of a small guest that prints GUEST-UP on its
// console, answers every line there, has an agent, and powers off when it is
// asked to. GRUB for Xen boots it as a guest of that type, "pvh" or "pv". It lies
// on this machine.
func (h *Host) Tiny(guestType string) string {
	return filepath.Join(h.image, "tiny-"+guestType+".raw")
}
