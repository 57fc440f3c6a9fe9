package fakescreen

import (
	"io"
	"sync"
)

// Machine plays a machine: it draws a picture for every look, and remembers.
type Machine struct {
	conn io.ReadWriteCloser
	mu   sync.Mutex
	keys string
	text string
}

// StartMachine plays a machine on conn until conn ends.
func StartMachine(conn io.ReadWriteCloser) *Machine {
	m := &Machine{conn: conn}
	go m.serve()
	return m
}

func (m *Machine) serve() {
	in := newLines(m.conn)
	for {
		verb, text, err := in.next()
		if err != nil {
			return
		}
		m.mu.Lock()
		switch verb {
		case "key":
			m.keys += text
		case "paste":
			m.text = text
		case "look":
			err = say(m.conn, "picture", "keys:"+m.keys)
		}
		m.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Typed returns the keys that arrived.
func (m *Machine) Typed() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.keys
}

// Pasted returns the clipboard text that arrived last.
func (m *Machine) Pasted() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.text
}

// Copy puts a text on the desktop's clipboard.
func (m *Machine) Copy(text string) error { return say(m.conn, "copy", text) }

// Break says what no machine says.
func (m *Machine) Break() error { return say(m.conn, "nonsense", "") }

// Viewer plays a viewer.
type Viewer struct {
	conn io.ReadWriteCloser
	in   *lines
	text string
}

// OpenViewer shows the secret on conn and returns once the first picture came.
func OpenViewer(conn io.ReadWriteCloser, secret string) (*Viewer, error) {
	v := &Viewer{conn: conn, in: newLines(conn)}
	if err := say(conn, "secret", secret); err != nil {
		return nil, err
	}
	return v, v.Look()
}

// Look asks for a picture and returns once it came.
func (v *Viewer) Look() error {
	if err := say(v.conn, "look", ""); err != nil {
		return err
	}
	for {
		verb, text, err := v.in.next()
		switch {
		case err != nil:
			return err
		case verb == "picture":
			return nil
		case verb == "copy":
			v.text = text
		}
	}
}

// Type presses a key.
func (v *Viewer) Type(key byte) error { return say(v.conn, "key", string(key)) }

// Paste puts a text on the person's clipboard.
func (v *Viewer) Paste(text string) error { return say(v.conn, "paste", text) }

// Ask asks for the text that is held on its way in, or out.
func (v *Viewer) Ask(in bool) error {
	if in {
		return say(v.conn, "ask", "in")
	}
	return say(v.conn, "ask", "out")
}

// Copied returns the clipboard text that arrived last.
func (v *Viewer) Copied() string { return v.text }

// Break says what no viewer says.
func (v *Viewer) Break() error { return say(v.conn, "nonsense", "") }
