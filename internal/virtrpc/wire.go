package virtrpc

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// What of the protocol we speak ourselves (src/rpc/virnetprotocol.x,
// virkeepaliveprotocol.x and src/remote/remote_protocol.x of the vendor).
const (
	headSize   = 28 // length, program, version, procedure, type, serial, status
	maxPacket  = 64 << 20
	maxPayload = 256 << 10 // of a stream packet that every version takes

	programDomains   = 0x20008086
	programKeepalive = 0x6b656570

	procPing        = 1 // of programKeepalive
	procOpenConsole = 201
	procLifecycle   = 318

	typeReply   = 1
	typeMessage = 2
	typeStream  = 3
	typeFiles   = 5 // a reply after which open files come

	statusOK       = 0
	statusError    = 1
	statusContinue = 2
)

// A daemon is asked whether it lives every pingEvery; one from which nothing
// came for silence has gone. Both are those of the vendor's own client.
const (
	pingEvery = 5 * time.Second
	silence   = 30 * time.Second
)

// head is what precedes every packet's payload.
type head struct {
	program, procedure, kind uint32
	serial                   uint32
	status                   uint32
}

func parseHead(b []byte) head {
	be := binary.BigEndian
	return head{program: be.Uint32(b[4:]), procedure: be.Uint32(b[12:]), kind: be.Uint32(b[16:]), serial: be.Uint32(b[20:]), status: be.Uint32(b[24:])}
}

func (h head) packet(payload []byte) []byte {
	be, b := binary.BigEndian, make([]byte, headSize, headSize+len(payload))
	be.PutUint32(b, uint32(headSize+len(payload)))
	be.PutUint32(b[4:], h.program)
	be.PutUint32(b[8:], 1)
	be.PutUint32(b[12:], h.procedure)
	be.PutUint32(b[16:], h.kind)
	be.PutUint32(b[20:], h.serial)
	be.PutUint32(b[24:], h.status)
	return append(b, payload...)
}

// wire is the connection as the client module sees it. It does what the module
// cannot: it keeps the domain of an error, asks whether the daemon lives, and
// takes out the packets of streams and events for us.
type wire struct {
	net.Conn
	rest []byte // of a packet that the module has read in part
	gone chan struct{}
	once sync.Once
	seen atomic.Int64 // when something came last, in nanoseconds of the epoch

	event   func(uuid string) // set before the first read, as all that follows
	console *console
	file    chan *os.File // takes what a reply brings; nil where none is asked for

	mu   sync.Mutex
	left int // bytes of a packet that the module has written in part
}

func newWire(conn net.Conn) *wire {
	w := &wire{Conn: conn, gone: make(chan struct{})}
	w.seen.Store(time.Now().UnixNano())
	return w
}

// Close ends the connection; who waits on it is told.
func (w *wire) Close() error {
	w.once.Do(func() { close(w.gone) })
	return w.Conn.Close()
}

// Read gives the module the packets that are for it.
func (w *wire) Read(p []byte) (int, error) {
	for len(w.rest) == 0 {
		packet, err := w.next()
		if err != nil {
			if w.console != nil {
				w.console.end(io.ErrUnexpectedEOF)
			}
			w.Close()
			return 0, err
		}
		if w.forModule(packet) {
			w.rest = packet
		}
	}
	n := copy(p, w.rest)
	w.rest = w.rest[n:]
	return n, nil
}

func (w *wire) next() ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(w.Conn, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n < headSize || n > maxPacket {
		return nil, fmt.Errorf("a packet of %d bytes", n)
	}
	packet := make([]byte, n)
	copy(packet, size[:])
	if _, err := io.ReadFull(w.Conn, packet[4:]); err != nil {
		return nil, err
	}
	w.seen.Store(time.Now().UnixNano())
	if parseHead(packet).kind == typeFiles {
		return w.withFiles(packet)
	}
	return packet, nil
}

// withFiles takes up the files that follow a reply, each with a byte of its own,
// and returns it as one that brings none. Their number leads its payload.
func (w *wire) withFiles(packet []byte) ([]byte, error) {
	conn, local := w.Conn.(*net.UnixConn)
	if !local || len(packet) < headSize+4 {
		return nil, fmt.Errorf("files came on a connection that carries none")
	}
	for range binary.BigEndian.Uint32(packet[headSize:]) {
		var one [1]byte
		space := make([]byte, unix.CmsgSpace(4))
		n, length, _, _, err := conn.ReadMsgUnix(one[:], space)
		if err != nil || n == 0 {
			return nil, errors.Join(io.ErrUnexpectedEOF, err)
		}
		messages, err := unix.ParseSocketControlMessage(space[:length])
		if err != nil {
			return nil, err
		}
		for _, m := range messages {
			fds, err := unix.ParseUnixRights(&m)
			if err != nil {
				return nil, err
			}
			for _, fd := range fds {
				w.keep(os.NewFile(uintptr(fd), "passed"))
			}
		}
	}
	be := binary.BigEndian
	packet = append(packet[:headSize], packet[headSize+4:]...)
	be.PutUint32(packet, uint32(len(packet)))
	be.PutUint32(packet[16:], typeReply)
	return packet, nil
}

func (w *wire) keep(f *os.File) {
	select {
	case w.file <- f: // a nil channel takes nothing
	default:
		f.Close()
	}
}

// forModule reports whether the module is to see the packet.
func (w *wire) forModule(packet []byte) bool {
	h, payload := parseHead(packet), packet[headSize:]
	switch {
	case h.program == programKeepalive:
		return false
	case h.kind == typeStream:
		if w.console != nil {
			w.console.take(h.status, payload)
		}
		return false
	case h.kind == typeMessage:
		if uuid, ok := lifecycle(h, payload); ok && w.event != nil {
			w.event(uuid)
		}
		return false
	case h.kind == typeReply && h.procedure == procOpenConsole && h.status == statusOK && w.console != nil:
		w.console.serial.Store(h.serial)
	case h.kind == typeReply && h.status == statusError:
		keepDomain(payload)
	}
	return true
}

// lifecycle returns whom an event is about. Its payload is the number of the
// registration, the machine's name, its UUID and what happened.
func lifecycle(h head, payload []byte) (uuid string, ok bool) {
	if h.program != programDomains || h.procedure != procLifecycle || len(payload) < 8 {
		return "", false
	}
	name := uint64(binary.BigEndian.Uint32(payload[4:]))
	at := 8 + (name+3)&^3
	if uint64(len(payload)) < at+16 {
		return "", false
	}
	return formatUUID([16]byte(payload[at : at+16])), true
}

// keepDomain moves the number of the part that failed into the upper half of
// the error's code, for the module drops it. Both are small numbers.
func keepDomain(payload []byte) {
	if len(payload) >= 8 && binary.BigEndian.Uint32(payload) != 0 {
		copy(payload[0:2], payload[6:8])
	}
}

// Write passes on what the module writes, a packet in one piece or several.
func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for rest := p; len(rest) > 0; {
		if w.left == 0 {
			if len(rest) < 4 {
				return 0, fmt.Errorf("a packet that begins with %d bytes", len(rest))
			}
			w.left = int(binary.BigEndian.Uint32(rest))
		}
		n := min(w.left, len(rest))
		w.left, rest = w.left-n, rest[n:]
	}
	return w.Conn.Write(p)
}

// send writes a packet of ours between those of the module.
func (w *wire) send(packet []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.left != 0 {
		return nil // a packet is under way: that says as much as a ping
	}
	_, err := w.Conn.Write(packet)
	return err
}

// keepAlive asks the daemon whether it lives until it does not.
func (w *wire) keepAlive(every, silence time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	ping := head{program: programKeepalive, procedure: procPing, kind: typeMessage}.packet(nil)
	for {
		select {
		case <-w.gone:
			return
		case now := <-tick.C:
			if now.Sub(time.Unix(0, w.seen.Load())) > silence {
				w.Close()
				return
			}
			w.Conn.SetWriteDeadline(now.Add(silence))
			w.send(ping)
		}
	}
}

func formatUUID(u [16]byte) string {
	s := hex.EncodeToString(u[:])
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}
