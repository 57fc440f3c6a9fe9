package gateway

import (
	"bufio"
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"consort.dev/consort/estate"
	"consort.dev/consort/internal/rfb"
	"consort.dev/consort/plane/store"
)

// keyboard is a screen that remembers what was done to it.
type keyboard struct {
	mu   sync.Mutex
	seen []rfb.Message // keys pressed, pointers, texts
}

func (k *keyboard) done() []rfb.Message {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.seen
}

// dialled is a Dial of machines whose screens are k.
func (k *keyboard) dialled(context.Context, *estate.Machine, estate.Presentation) (io.ReadWriteCloser, error) {
	ours, theirs := net.Pipe()
	go func() {
		defer ours.Close()
		r := bufio.NewReader(ours)
		if _, err := rfb.Accept(r, ours, rfb.Guard{}); err != nil {
			return
		}
		if rfb.Write(ours, rfb.ServerInit{Width: cells, Height: cells, Format: rfb.XRGB(), Name: "screen"}) != nil {
			return
		}
		in := rfb.ViewerReader{R: r, TextLimit: 1 << 20}
		for {
			m, err := in.Read()
			if err != nil {
				return
			}
			k.take(m)
			if u, is := m.(rfb.UpdateRequest); is && !u.Incremental && paint(ours) != nil {
				return
			}
		}
	}()
	return theirs, nil
}

func (k *keyboard) take(m rfb.Message) {
	switch m := m.(type) {
	case rfb.Key:
		if !m.Down { // what keeps a screen awake is a release
			return
		}
	case rfb.Pointer, rfb.Text:
	default:
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.seen = append(k.seen, m)
}

// act presses a key, clicks and pastes, and waits until a picture that was asked
// for afterwards has come: what was to arrive has.
func act(v *rfb.Client) error {
	if err := v.Type("x"); err != nil {
		return err
	}
	if err := v.Send(rfb.Pointer{Buttons: 1, X: 3, Y: 4}, rfb.Text{Latin1: []byte("pasted")}); err != nil {
		return err
	}
	if err := v.Request(false); err != nil {
		return err
	}
	return v.NextFrame()
}

// change changes the machine.
func (w *world) change(t *testing.T, f func(*estate.Machine)) {
	t.Helper()
	_, err := store.Modify(t.Context(), w.store, "main", "ana-clerk", func(m *estate.Machine) error { f(m); return nil })
	if err != nil {
		t.Fatal(err)
	}
}

func TestACloneIsLookedAtAndNotTouchedUntilItIsItsOwn(t *testing.T) {
	w := newWorld(t)
	k := &keyboard{}
	w.Dial = k.dialled
	w.change(t, func(m *estate.Machine) { m.Spec.Template = "t" })
	c, _, err := w.dial(w.ticket(t, w.session(t, "one")), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	v, err := look(c, rfb.Proof{})
	if err != nil {
		t.Fatalf("no picture before it is its own: %v", err)
	}
	for range 3 {
		if err := act(v); err != nil {
			t.Fatal(err)
		}
	}
	if got := k.done(); len(got) > 0 {
		t.Fatalf("%+v reached a machine that has its template's identity", got)
	}
	eventually(t, "that something was held back is in the log", func() bool {
		return strings.Contains(w.log.String(), "no identity of its own")
	})
	// Another machine's identity opens nothing.
	if err := w.store.Create(t.Context(), object(&estate.Machine{}, "Machine", "other")); err != nil {
		t.Fatal(err)
	}
	if err := act(v); err != nil {
		t.Fatal(err)
	}
	if got := k.done(); len(got) > 0 {
		t.Fatalf("%+v reached the machine when another became its own", got)
	}
	w.change(t, func(m *estate.Machine) { m.Status.Guest.Own = true })
	eventually(t, "key, click and text arrive once it is its own", func() bool {
		if err := act(v); err != nil {
			t.Fatal(err)
		}
		kinds := map[string]bool{}
		for _, m := range k.done() {
			switch m := m.(type) {
			case rfb.Key:
				kinds["key"] = m.Sym == 'x'
			case rfb.Pointer:
				kinds["click"] = m == rfb.Pointer{Buttons: 1, X: 3, Y: 4}
			case rfb.Text:
				kinds["text"] = string(m.Latin1) == "pasted"
			}
		}
		return kinds["key"] && kinds["click"] && kinds["text"]
	})
}

// TestWhatIsItsOwnIsTouchedAtOnce is the positive control of the test above.
func TestWhatIsItsOwnIsTouchedAtOnce(t *testing.T) {
	for name, f := range map[string]func(*estate.Machine){
		"booted from its own disk": func(*estate.Machine) {},
		"a clone with an identity": func(m *estate.Machine) { m.Spec.Template, m.Status.Guest.Own = "t", true },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			k := &keyboard{}
			w.Dial = k.dialled
			w.change(t, f)
			c, _, err := w.dial(w.ticket(t, w.session(t, "one")), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			v, err := look(c, rfb.Proof{})
			if err == nil {
				err = act(v)
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := k.done(); len(got) != 3 {
				t.Errorf("%+v arrived, want a key, a click and a text", got)
			}
		})
	}
}
