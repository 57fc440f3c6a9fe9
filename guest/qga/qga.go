// Package qga runs commands in a guest through its QEMU guest agent. Everything
// that comes from a guest is untrusted.
package qga

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"consort.dev/consort/fault"
	"consort.dev/consort/internal/qmp"
)

const (
	// maxMessage bounds what a guest can make us hold: the agent itself keeps
	// at most 16 MiB of each stream (QEMU 7.2, qga/commands.c), in base64.
	maxMessage = 48 << 20
	// maxOutput is how much of each stream we return.
	maxOutput = 1 << 20
	// syncLimit is how long an agent may take to answer at all; a loaded guest
	// under software emulation takes up to a second.
	syncLimit = 3 * time.Second
	// answerLimit is how long an agent in step may take for one answer.
	answerLimit = 30 * time.Second
)

// The agent logs every call to the guest's journal, so it is polled gently
// (2 ms took half the guest's CPU).
const (
	firstPoll = 20 * time.Millisecond
	lastPoll  = 250 * time.Millisecond
)

// Client speaks to one agent. It is safe for concurrent use: long commands do
// not keep others waiting. A client that fails gets into step again by itself.
type Client struct {
	dial func(context.Context) (net.Conn, error)

	turn chan struct{} // holds a token while nobody speaks
	conn net.Conn
	r    *bufio.Reader
	last int64

	life  context.Context // ends with Close
	close context.CancelFunc
}

// New returns a client that reaches the agent through dial. Nothing is dialled
// before the first command. QEMU serves one client of an agent at a time.
func New(dial func(context.Context) (net.Conn, error)) *Client {
	c := &Client{dial: dial, turn: make(chan struct{}, 1)}
	c.life, c.close = context.WithCancel(context.Background())
	c.turn <- struct{}{}
	return c
}

// Close ends the connection and what is being said. A second Close does nothing.
func (c *Client) Close() {
	c.close()
	<-c.turn
	defer func() { c.turn <- struct{}{} }()
	c.drop()
}

// Output is what a command left behind, each stream at most 1 MiB.
type Output struct {
	Exit   int // 128 and the signal's number when a signal ended it
	Stdout []byte
	Stderr []byte
}

// Run runs a command as the agent's user, who is root, and waits for it. An
// agent that does not answer is fault.Unavailable and the command was not run;
// one that falls silent later is fault.OutcomeUnknown. When ctx ends first the
// command goes on.
func (c *Client) Run(ctx context.Context, args []string, stdin []byte) (Output, error) {
	req := map[string]any{"path": args[0], "arg": args[1:], "capture-output": true}
	if stdin != nil {
		req["input-data"] = stdin
	}
	var started struct {
		PID int64 `json:"pid"`
	}
	if err := c.ask(ctx, "guest-exec", req, &started); err != nil {
		var refused *refusal
		if errors.As(err, &refused) {
			// It starts no program that is not there; that is an exit, as in a shell.
			return Output{Exit: 127, Stderr: []byte(refused.Desc + "\n")}, nil
		}
		return Output{}, err
	}
	for pause := firstPoll; ; pause = min(2*pause, lastPoll) {
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return Output{}, ctx.Err()
		}
		var s status
		if err := c.ask(ctx, "guest-exec-status", map[string]any{"pid": started.PID}, &s); err != nil {
			if ctx.Err() != nil {
				return Output{}, ctx.Err()
			}
			return Output{}, fault.OutcomeUnknown.Errorf("the command was started, then: %w", err)
		}
		if s.Exited {
			return s.output(), nil
		}
	}
}

type status struct {
	Exited bool   `json:"exited"`
	Code   int    `json:"exitcode"`
	Signal int    `json:"signal"`
	Out    []byte `json:"out-data"`
	Err    []byte `json:"err-data"`
}

func (s status) output() Output {
	o := Output{Exit: s.Code, Stdout: s.Out[:min(len(s.Out), maxOutput)], Stderr: s.Err[:min(len(s.Err), maxOutput)]}
	if s.Signal != 0 {
		o.Exit = 128 + s.Signal
	}
	return o
}

// Shutdown tells the guest to power off and returns once it has been told. The
// agent's own command comes second: it answers nothing when it succeeds, and it
// has systemd schedule the deed, which needs a login daemon to be there.
func (c *Client) Shutdown(ctx context.Context) error {
	var refused *refusal
	err := c.ask(ctx, "guest-exec", map[string]any{"path": "/sbin/poweroff"}, new(any))
	if !errors.As(err, &refused) {
		return err
	}
	if err := c.begin(ctx); err != nil {
		return err
	}
	defer c.end()
	defer c.drop()
	return c.speak(ctx, answerLimit, func() error {
		_, err := io.WriteString(c.conn, `{"execute":"guest-shutdown","arguments":{"mode":"powerdown"}}`+"\n")
		return err
	})
}

// begin takes the turn to speak, with the agent in step.
func (c *Client) begin(ctx context.Context) error {
	select {
	case <-c.turn:
	case <-ctx.Done():
		return ctx.Err()
	}
	err := c.life.Err()
	if err == nil {
		err = c.sync(ctx)
	}
	if err == nil {
		return nil
	}
	c.drop()
	c.end()
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	return fault.Unavailable.Errorf("the guest agent does not answer: %w", err)
}

func (c *Client) end() { c.turn <- struct{}{} }

// ask has one command answered. The connection is in step afterwards, or closed.
func (c *Client) ask(ctx context.Context, command string, args, result any) error {
	if err := c.begin(ctx); err != nil {
		return err
	}
	defer c.end()
	err := c.speak(ctx, answerLimit, func() error {
		line, err := json.Marshal(map[string]any{"execute": command, "arguments": args})
		if err != nil {
			return err
		}
		if _, err := c.conn.Write(append(line, '\n')); err != nil {
			return err
		}
		return c.answer(result)
	})
	var refused *refusal
	if err != nil && !errors.As(err, &refused) {
		c.drop()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fault.OutcomeUnknown.Errorf("the guest agent fell silent: %w", err)
	}
	return err
}

// sync connects where needed and finds the point in the agent's words from
// which answers are ours: guest-sync-delimited puts a byte 0xFF, which is in no
// JSON, before its answer.
func (c *Client) sync(ctx context.Context) error {
	if c.conn != nil {
		return nil
	}
	conn, err := c.dial(ctx)
	if err != nil {
		return err
	}
	c.conn, c.r = conn, bufio.NewReaderSize(conn, 16<<10)
	c.last = time.Now().UnixNano() & (1<<53 - 1)
	return c.speak(ctx, syncLimit, func() error {
		// The leading 0xFF makes the agent's parser forget half a message.
		_, err := fmt.Fprintf(c.conn, "\xff{\"execute\":\"guest-sync-delimited\",\"arguments\":{\"id\":%d}}\n", c.last)
		if err != nil {
			return err
		}
		for n := 0; ; {
			b, err := c.r.ReadSlice(0xff)
			if n += len(b); n > maxMessage {
				return errors.New("endless noise")
			}
			if errors.Is(err, bufio.ErrBufferFull) {
				continue
			}
			if err != nil {
				return err
			}
			var id int64
			if err := c.answer(&id); err == nil && id == c.last {
				return nil
			}
		}
	})
}

// speak runs one exchange, which ends when ctx does and within limit.
func (c *Client) speak(ctx context.Context, limit time.Duration, exchange func() error) error {
	c.conn.SetDeadline(time.Now().Add(limit))
	conn := c.conn
	cut := func() { conn.SetDeadline(time.Unix(1, 0)) }
	defer context.AfterFunc(ctx, cut)()
	defer context.AfterFunc(c.life, cut)()
	return exchange()
}

func (c *Client) drop() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

type refusal struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

func (r *refusal) Error() string { return r.Desc }

// answer reads one answer into result.
func (c *Client) answer(result any) error {
	line, err := qmp.ReadLine(c.r, maxMessage)
	if err != nil {
		return err
	}
	return decode(line, result)
}

func decode(line []byte, result any) error {
	var m struct {
		Return json.RawMessage `json:"return"`
		Error  *refusal        `json:"error"`
	}
	if err := json.Unmarshal(bytes.TrimLeft(line, "\xff"), &m); err != nil {
		return err
	}
	if m.Error != nil {
		return m.Error
	}
	return json.Unmarshal(m.Return, result)
}
