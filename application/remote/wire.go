// Package remote drives an application provider in another process on the same
// host, over a unix socket.
//
// Each call is a connection of its own that carries lines of JSON both ways:
// the request; then, while the provider works, its questions to the machine and
// their answers, and its progress; at last the outcome. Whoever hangs up ends
// the call.
package remote

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"sync"

	"consort.dev/consort/application/driver"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// message is a line. Say says what it is and which fields count.
type message struct {
	Say string `json:"say"`

	// Requests: describe, attach, attached, start, detach, build.
	Machine estate.MachineID `json:"machine,omitempty"`
	Layer   *driver.Layer    `json:"layer,omitempty"`
	Launch  *driver.Launch   `json:"launch,omitempty"`
	Recipe  *driver.Recipe   `json:"recipe,omitempty"`
	Dir     string           `json:"dir,omitempty"`

	// Questions to the machine: attach-disk, detach-disk, disks, run.
	Disk  *driver.Disk `json:"disk,omitempty"`
	Args  []string     `json:"args,omitempty"`
	Stdin []byte       `json:"stdin,omitempty"`

	// Progress: work. Answers: answer. The outcome: done.
	Work    *estate.Work          `json:"work,omitempty"`
	Disks   []string              `json:"disks,omitempty"`
	Output  *driver.Output        `json:"output,omitempty"`
	Offer   *estate.DeliveryOffer `json:"offer,omitempty"`
	Builds  bool                  `json:"builds,omitempty"`
	Digests []estate.Digest       `json:"digests,omitempty"`
	Path    string                `json:"path,omitempty"`
	Kind    string                `json:"kind,omitempty"` // of the failure
	Text    string                `json:"text,omitempty"`
	Failed  bool                  `json:"failed,omitempty"`
}

// longest is the longest line: the output of a command, twice 1 MiB, in base64.
const longest = 4 << 20

// line is a connection that carries messages.
type line struct {
	conn net.Conn
	in   *bufio.Reader
	mu   sync.Mutex // of writing
}

func newLine(conn net.Conn) *line { return &line{conn: conn, in: bufio.NewReader(conn)} }

func (l *line) send(m message) error {
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err = l.conn.Write(append(data, '\n'))
	return err
}

func (l *line) receive() (message, error) { return read(l.in) }

// read reads one message.
func read(in *bufio.Reader) (m message, err error) {
	var text []byte
	for {
		part, err := in.ReadSlice('\n')
		if text = append(text, part...); len(text) > longest {
			return m, fault.Invalid.Errorf("a line of more than %d bytes", longest)
		}
		if err == nil {
			break
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			if errors.Is(err, io.EOF) && len(text) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return m, err
		}
	}
	return m, json.Unmarshal(text, &m)
}

// fail puts an error into a message.
func (m message) fail(err error) message {
	if err != nil {
		m.Failed, m.Kind, m.Text = true, fault.KindOf(err).String(), err.Error()
	}
	return m
}

// err takes the error out again. The end of the other side's context is the end
// of ours, or its failure.
func (m message) err(ctx context.Context) error {
	if !m.Failed {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fault.Named(m.Kind).Errorf("%s", m.Text)
}
