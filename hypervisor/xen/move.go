package xen

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// libxl moves memory and no disks, and that of PV guests not at all. So a
// machine moves in strokes of ours: its disks are carried while it runs; it is
// saved; what has changed on its disks since, and its memory, follow; and it
// goes on there. It stands still from the second stroke on. Should any fail, it
// goes on here, from the same saved memory.

// moveKind is the value of estate.CanMoveLive: hosts with this one understand
// each other.
const moveKind = "xen-save/1"

// chunk is how much of a disk is compared and carried at a time.
const chunk = 1 << 20

// quiet is how long either side of a move may say nothing. Starting a machine
// from its memory takes 10 s where Xen is itself emulated.
const quiet = 2 * time.Minute

// message is a line of JSON from the host that a machine leaves. The first one
// has ID and Token.
type message struct {
	ID    estate.MachineID `json:",omitempty"`
	Token string           `json:",omitempty"`

	Disk   string `json:",omitempty"` // Len bytes of this disk follow
	Memory uint32 `json:",omitempty"` // Len bytes of the memory follow; the version of their form
	At     int64  `json:",omitempty"`
	Len    int64  `json:",omitempty"`

	Go   bool `json:",omitempty"` // everything was sent: start it
	Runs bool `json:",omitempty"` // does it run? If not, it must never start
}

// verdict is the answer to the first message, to Go and to Runs.
type verdict struct {
	Runs  bool
	Error string
}

// Arrive implements driver.Mover.
func (h *host) Arrive(ctx context.Context, def driver.Definition) (string, error) {
	if err := h.check(def); err != nil {
		return "", err
	}
	token := rand.Text()
	err := h.act(ctx, def.ID, func(ctx, _ context.Context, m *machine) error {
		if m.defined() {
			return fault.Exists.Errorf("machine %s is on this host already", def.ID)
		}
		if _, kept := m.record(); kept {
			if err := m.forget(); err != nil { // an older copy, or an arrival that never ended
				return err
			}
		}
		blank := def
		blank.Disks = nil
		for _, d := range def.Disks {
			if d.File == nil {
				d.Base, d.Size = nil, estate.Bytes(diskSize(d))
			}
			blank.Disks = append(blank.Disks, d)
		}
		return m.make(ctx, blank, record{Def: def, Arriving: token})
	})
	return h.cfg.Peer + "/" + token, err
}

// receive takes machines that come in on l until it is closed.
func (h *host) receive(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			in := bufio.NewReaderSize(conn, chunk)
			first, err := readMessage(conn, in)
			if err == nil {
				err = h.welcome(conn, in, first)
			}
			if err != nil {
				say(conn, verdict{Error: err.Error()})
			}
		}()
	}
}

func readMessage(conn net.Conn, in *bufio.Reader) (q message, err error) {
	conn.SetReadDeadline(time.Now().Add(quiet))
	line, err := in.ReadSlice('\n')
	if err == nil {
		err = json.Unmarshal(line, &q)
	}
	return q, err
}

func say(w io.Writer, v any) error { return json.NewEncoder(w).Encode(v) }

// welcome takes the machine that the first message speaks of, in its turn.
func (h *host) welcome(conn net.Conn, in *bufio.Reader, first message) error {
	ctx, cancel := context.WithTimeout(context.Background(), longest)
	defer cancel()
	m, err := h.machine(ctx, first.ID)
	if err != nil {
		return err
	}
	defer h.done(m)
	r, kept := m.record()
	if first.Runs && m.defined() {
		return say(conn, verdict{Runs: m.power(ctx) == estate.On})
	}
	if !kept || first.Token == "" || r.Arriving != first.Token {
		return fault.NotFound.Errorf("machine %s is not awaited here", first.ID)
	}
	if first.Runs {
		if err := m.forget(); err != nil {
			return err
		}
		return say(conn, verdict{})
	}
	if err := say(conn, verdict{}); err != nil {
		return err
	}
	if err := m.fill(conn, in); err != nil {
		return err
	}
	if err := m.goOn(ctx); err != nil {
		return err
	}
	return say(conn, verdict{Runs: true})
}

// fill writes what is sent to the machine's disks and to its memory, until it
// is all there.
func (m *machine) fill(conn net.Conn, in *bufio.Reader) error {
	r, _ := m.record()
	for {
		q, err := readMessage(conn, in)
		switch {
		case err != nil:
			return err
		case q.Go:
			return nil
		case q.Len < 0 || q.Len > chunk || q.At < 0:
			return fault.Invalid.Errorf("a piece of %d bytes at %d", q.Len, q.At)
		}
		path, at := m.memory(), q.At
		if q.Disk != "" {
			file := r.Files[q.Disk]
			if file == "" || q.At+q.Len > r.size(q.Disk) {
				return fault.Invalid.Errorf("%d bytes at %d of disk %q, which has none there", q.Len, q.At, q.Disk)
			}
			path = filepath.Join(m.dir, file)
		} else if at, err = m.memoryAt(q); err != nil {
			return err
		}
		if err := writePiece(path, at, io.LimitReader(in, q.Len), q.Len); err != nil {
			return err
		}
	}
}

// size returns that of a disk of the machine.
func (r record) size(disk string) int64 {
	for _, d := range r.Def.Disks {
		if d.Name == disk {
			return diskSize(d)
		}
	}
	return 0
}

func writePiece(path string, at int64, r io.Reader, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	n, err := io.Copy(io.NewOffsetWriter(f, at), r)
	if err == nil && n < size {
		err = io.ErrUnexpectedEOF
	}
	return errors.Join(err, f.Close())
}

// goOn starts the machine from the memory that came. If that fails, nothing of
// it stays.
func (m *machine) goOn(ctx context.Context) error {
	err := m.update(func(r *record) {
		r.Arriving, r.Starting, r.Started, r.Resumed = "", r.Starts+1, time.Now().UTC(), true
	})
	if err != nil {
		return err
	}
	err = errors.Join(os.RemoveAll(m.run), os.Mkdir(m.run, 0o700), m.tellDefinition(ctx))
	if err == nil {
		err = m.host.calls.Create(ctx, string(m.id))
	}
	if err != nil && m.power(ctx) != estate.On {
		gone := errors.Join(m.stop(ctx, ctx, 0), m.undefine(ctx))
		if gone != nil {
			return errors.Join(err, gone)
		}
		return errors.Join(err, os.RemoveAll(m.memory()), m.forget())
	}
	return m.count()
}

// Depart implements driver.Mover.
func (h *host) Depart(ctx context.Context, id estate.MachineID, at string) error {
	return h.actOn(ctx, id, func(ctx, steady context.Context, m *machine) error {
		if err := m.mustBe(ctx, estate.On); err != nil {
			return err
		}
		address, token, ok := strings.Cut(at, "/")
		if !ok {
			return fault.Invalid.Errorf("%q is no place where a machine is awaited", at)
		}
		plugs, err := h.calls.Plugged(ctx, string(id))
		if err != nil {
			return err
		}
		if len(plugs) > 0 {
			return fault.Conflict.Errorf("machine %s has %d disks attached, which do not go along; detach them first", id, len(plugs))
		}
		t := &trip{m: m, address: address, token: token, sent: map[string][]digest{}}
		if err := t.begin(ctx); err != nil {
			return err
		}
		defer t.conn.Close()
		if err := t.disks(ctx); err != nil { // most of it, while the machine runs
			return err
		}
		if err := m.count(); err != nil {
			return err
		}
		if err := m.save(ctx, steady); err != nil {
			return err
		}
		runs, err := t.finish(steady)
		switch {
		case runs:
			return errors.Join(m.undefine(steady), m.update(func(r *record) { r.Shelved = true }))
		case errors.Is(err, fault.OutcomeUnknown):
			return err
		}
		if err := m.update(func(r *record) { r.Resumed = true }); err != nil {
			return err
		}
		if again := h.calls.Create(steady, string(id)); again != nil && m.power(steady) != estate.On {
			return fault.Stuck.Errorf("machine %s neither runs there (%w) nor goes on here: %w", id, err, again)
		}
		return fault.Unavailable.Errorf("machine %s goes on here: %w", id, err)
	})
}

// digest is that of a chunk of a disk.
type digest [sha256.Size]byte

// trip is a machine's way from here.
type trip struct {
	m              *machine
	address, token string
	conn           net.Conn
	in             *bufio.Reader
	sent           map[string][]digest // what the other host has of each disk
}

// begin reaches the other host, which must await the machine.
func (t *trip) begin(ctx context.Context) error {
	if _, err := t.ask(ctx, message{ID: t.m.id, Token: t.token}); err != nil {
		return fault.Unavailable.Errorf("machine %s has not left: %w", t.m.id, err)
	}
	return nil
}

// ask opens a connection with a first message and returns the answer.
func (t *trip) ask(ctx context.Context, q message) (v verdict, err error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", t.address)
	if err != nil {
		return v, err
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	t.conn, t.in = conn, bufio.NewReader(conn)
	if err = say(conn, q); err == nil {
		v, err = t.answer()
	}
	if err != nil {
		conn.Close()
	}
	return v, err
}

// answer reads the other host's verdict.
func (t *trip) answer() (v verdict, err error) {
	t.conn.SetReadDeadline(time.Now().Add(quiet))
	line, err := t.in.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &v)
	}
	if err == nil && v.Error != "" {
		err = refused{v.Error}
	}
	return v, err
}

// refused is what the other host says against it.
type refused struct{ text string }

func (r refused) Error() string { return "the other host: " + r.text }

// disks sends every chunk of the private disks that the other host does not have.
func (t *trip) disks(ctx context.Context) error {
	r, _ := t.m.record()
	for name, file := range r.Files {
		if err := t.disk(ctx, name, filepath.Join(t.m.dir, file)); err != nil {
			return fmt.Errorf("carry disk %s of machine %s: %w", name, t.m.id, err)
		}
	}
	return nil
}

func (t *trip) disk(ctx context.Context, name, path string) error {
	f, err := openDisk(path)
	if err != nil {
		return err
	}
	defer f.Close()
	buf, blank := make([]byte, chunk), sha256.Sum256(make([]byte, chunk))
	for i := 0; ; i++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.ReadFull(f, buf)
		if n == 0 && errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			return err
		}
		if i == len(t.sent[name]) {
			t.sent[name] = append(t.sent[name], blank) // the other host began with zeros
		}
		if sum := sha256.Sum256(buf[:n]); t.sent[name][i] != sum {
			if err := t.piece(message{Disk: name, At: int64(i) * chunk, Len: int64(n)}, buf[:n]); err != nil {
				return err
			}
			t.sent[name][i] = sum
		}
	}
}

func (t *trip) piece(q message, data []byte) error {
	t.conn.SetWriteDeadline(time.Now().Add(quiet))
	if err := say(t.conn, q); err != nil {
		return err
	}
	_, err := t.conn.Write(data)
	return err
}

// finish sends what is left and has the machine started there. It says whether
// it runs there; when it does not, it never will, unless the outcome is unknown.
func (t *trip) finish(ctx context.Context) (runs bool, err error) {
	if err := errors.Join(t.disks(ctx), t.memory(ctx)); err != nil {
		return false, err
	}
	err = t.piece(message{Go: true}, nil)
	if err == nil {
		var v verdict
		if v, err = t.answer(); err == nil {
			return v.Runs, nil
		}
	}
	var no refused
	if errors.As(err, &no) {
		return false, err
	}
	t.conn.Close()
	for end := time.Now().Add(quiet); time.Now().Before(end); {
		v, again := t.ask(ctx, message{ID: t.m.id, Token: t.token, Runs: true})
		if again == nil {
			return v.Runs, err
		}
		if errors.As(again, &no) {
			return false, again // it is not awaited any more, and does not run
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
	return false, fault.OutcomeUnknown.Errorf("machine %s runs there or is saved here: the other host does not answer: %w", t.m.id, err)
}
