// Package qmp speaks the QEMU Machine Protocol to one running machine.
package qmp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// maxMessage bounds one message. The largest we ask for, a block graph, is
// some tens of KiB; QEMU ends its messages with a line feed.
const maxMessage = 4 << 20

// eventRoom is how many events wait for a reader before the oldest is dropped.
const eventRoom = 64

// Client is a connection to a machine. It is safe for concurrent use. QEMU
// serves one client at a time and accepts the next once that one has gone.
type Client struct {
	conn   net.Conn
	write  sync.Mutex
	events chan Event
	done   chan struct{}

	mu      sync.Mutex
	last    uint64
	waiting map[string]chan message
	err     error // why the connection ended
}

// Event is something that happened in the machine.
type Event struct {
	Name string
	Data json.RawMessage
}

// Error is a command that the machine refused.
type Error struct {
	Command string
	Class   string // GenericError, DeviceNotFound, CommandNotFound, ...
	Text    string
}

func (e *Error) Error() string { return e.Command + ": " + e.Text }

// ErrClosed is the cause of every failure after the connection has ended.
var ErrClosed = errors.New("the machine's control connection has ended")

// Dial connects to the unix socket at path and completes the handshake.
func Dial(ctx context.Context, path string) (*Client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	return New(ctx, conn)
}

// New completes the handshake on conn, which it owns from now on.
func New(ctx context.Context, conn net.Conn) (*Client, error) {
	c := &Client{
		conn:    conn,
		events:  make(chan Event, eventRoom),
		done:    make(chan struct{}),
		waiting: map[string]chan message{},
	}
	r := bufio.NewReaderSize(conn, 16<<10)
	if err := c.greet(ctx, r); err != nil {
		conn.Close()
		return nil, fmt.Errorf("greeting: %w", err)
	}
	go c.read(r)
	if err := c.Execute(ctx, "qmp_capabilities", nil, nil); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// greet waits for the greeting. A second client connects and is not greeted
// until the first has gone, so the wait ends with ctx.
func (c *Client) greet(ctx context.Context, r *bufio.Reader) error {
	stop := context.AfterFunc(ctx, func() { c.conn.SetReadDeadline(time.Unix(1, 0)) })
	line, err := ReadLine(r, maxMessage)
	if !stop() {
		return ctx.Err()
	}
	if err != nil {
		return err
	}
	m, err := decode(line)
	if err == nil && m.Greeting == nil {
		err = errors.New("this is not a QEMU machine protocol socket")
	}
	return err
}

// Events returns what happened since the connection was made. When nobody
// reads, the oldest are dropped: an event is a hint to go and ask. The channel
// is closed when the connection ends.
func (c *Client) Events() <-chan Event { return c.events }

// Done is closed when the connection has ended: the machine has, or the client was closed.
func (c *Client) Done() <-chan struct{} { return c.done }

// Close ends the connection; the machine runs on.
func (c *Client) Close() error {
	err := c.conn.Close()
	<-c.done
	return err
}

// Execute runs a command with arguments that marshal to a JSON object, and
// unmarshals what it returns into result unless that is nil. A refusal is an
// *Error. When ctx ends first the command may still be carried out.
func (c *Client) Execute(ctx context.Context, command string, args, result any) error {
	return c.execute(ctx, request{Execute: command, Arguments: args}, nil, result)
}

// ExecuteWith is Execute for commands that take a file along, as add-fd does.
// The connection must be a unix socket; the file stays the caller's.
func (c *Client) ExecuteWith(ctx context.Context, file *os.File, command string, args, result any) error {
	return c.execute(ctx, request{Execute: command, Arguments: args}, file, result)
}

func (c *Client) execute(ctx context.Context, q request, file *os.File, result any) error {
	command := q.Execute
	if err := ctx.Err(); err != nil {
		return err
	}
	c.mu.Lock()
	if c.err != nil {
		defer c.mu.Unlock()
		return fmt.Errorf("%s: %w", command, c.err)
	}
	c.last++
	id := strconv.FormatUint(c.last, 10)
	reply := make(chan message, 1)
	c.waiting[id] = reply
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.waiting, id)
		c.mu.Unlock()
	}()

	q.ID = id
	line, err := json.Marshal(q)
	if err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	if err := c.send(append(line, '\n'), file); err != nil {
		return fmt.Errorf("%s: %w: %w", command, ErrClosed, err)
	}
	select {
	case m := <-reply:
		if m.Error != nil {
			return &Error{command, m.Error.Class, m.Error.Desc}
		}
		if result == nil {
			return nil
		}
		if err := json.Unmarshal(m.Return, result); err != nil {
			return fmt.Errorf("%s: answer: %w", command, err)
		}
		return nil
	case <-c.done:
		return fmt.Errorf("%s: %w", command, ErrClosed)
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", command, ctx.Err())
	}
}

// sendLimit is how long QEMU may leave our words unread before we count it as
// hung.
const sendLimit = 10 * time.Second

func (c *Client) send(line []byte, file *os.File) error {
	c.write.Lock()
	defer c.write.Unlock()
	c.conn.SetWriteDeadline(time.Now().Add(sendLimit))
	if file == nil {
		_, err := c.conn.Write(line)
		return err
	}
	u, ok := c.conn.(*net.UnixConn)
	if !ok {
		return errors.New("files travel on unix sockets only")
	}
	_, _, err := u.WriteMsgUnix(line, unix.UnixRights(int(file.Fd())), nil)
	return err
}

// read hands out messages until the connection ends.
func (c *Client) read(r *bufio.Reader) {
	defer close(c.done)
	defer close(c.events)
	defer c.conn.Close()
	err := c.deal(r)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = fmt.Errorf("%w: %w", ErrClosed, err)
}

func (c *Client) deal(r *bufio.Reader) error {
	for {
		line, err := ReadLine(r, maxMessage)
		if err != nil {
			return err
		}
		m, err := decode(line)
		if err != nil {
			return err
		}
		if m.Event != "" {
			c.tell(Event{m.Event, m.Data})
			continue
		}
		c.mu.Lock()
		reply := c.waiting[m.ID]
		delete(c.waiting, m.ID)
		c.mu.Unlock()
		if reply != nil {
			reply <- m
		}
	}
}

// tell queues an event, dropping the oldest when there is no room. Only the
// reading goroutine calls it.
func (c *Client) tell(e Event) {
	for {
		select {
		case c.events <- e:
			return
		default:
		}
		select {
		case <-c.events:
		default:
		}
	}
}

type request struct {
	Execute   string `json:"execute"`
	Arguments any    `json:"arguments,omitempty"`
	ID        string `json:"id"`
}

// message is anything QEMU says.
type message struct {
	Greeting json.RawMessage `json:"QMP"`
	Event    string          `json:"event"`
	Data     json.RawMessage `json:"data"`
	ID       string          `json:"id"`
	Return   json.RawMessage `json:"return"`
	Error    *refusal        `json:"error"`
}

type refusal struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

func decode(line []byte) (message, error) {
	var m message
	if err := json.Unmarshal(line, &m); err != nil {
		return message{}, fmt.Errorf("message of %d bytes: %w", len(line), err)
	}
	return m, nil
}

// ReadLine returns the next line, of at most most bytes. A line that the end
// cuts short is io.ErrUnexpectedEOF. The guest agent's protocol has such lines too.
func ReadLine(r *bufio.Reader, most int) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) > most {
			return nil, fmt.Errorf("message longer than %d bytes", most)
		}
		line = append(line, part...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			if errors.Is(err, io.EOF) && len(line) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return line, err
		}
	}
}
