package gateway

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/internal/rfb"
	"consort.dev/consort/plane/store"
)

// rule changes the context that the desktop lives in.
func (w *world) rule(t *testing.T, f func(*estate.ContextSpec)) {
	t.Helper()
	_, err := store.Modify(t.Context(), w.store, "main", "office", func(x *estate.Context) error { f(&x.Spec); return nil })
	if err != nil {
		t.Fatal(err)
	}
}

// viewer opens the session in front of k.
func (w *world) viewer(t *testing.T, k *keyboard, session string) *rfb.Client {
	t.Helper()
	w.Dial = k.dialled
	c, _, err := w.dial(w.ticket(t, w.session(t, session)), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	v, err := look(c, rfb.Proof{})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestASessionInWhichNobodyTypesEndsForGood(t *testing.T) {
	w := newWorld(t)
	w.rule(t, func(x *estate.ContextSpec) { x.TimeOuts.Idle = estate.Duration(time.Second) })
	v := w.viewer(t, &keyboard{}, "one")
	for end := time.Now().Add(1500 * time.Millisecond); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err := v.Type("x"); err != nil {
			t.Fatalf("it ended while somebody typed: %v", err)
		}
	}
	eventually(t, "the session ends and says why", func() bool {
		st := w.status(t, "one")
		return st.State == estate.SessionEnded && strings.Contains(st.Because, "for 1s") && !st.Opened.IsZero()
	})
	if _, err := v.Next(); err == nil {
		t.Error("the viewer of a session that has ended hears more")
	}
}

func TestTheContextSaysThatTextsWaitToBeAskedFor(t *testing.T) {
	for gesture, want := range map[bool]int{false: 1, true: 0} {
		w, k := newWorld(t), &keyboard{}
		w.rule(t, func(x *estate.ContextSpec) { x.Clipboard = estate.Clipboard{In: true, Gesture: gesture} })
		v := w.viewer(t, k, "one")
		paste := func(more ...rfb.Message) int {
			if err := v.Send(append([]rfb.Message{rfb.Text{Latin1: []byte("pasted")}}, more...)...); err != nil {
				t.Fatal(err)
			}
			if err := v.Request(false); err != nil {
				t.Fatal(err)
			}
			if err := v.NextFrame(); err != nil {
				t.Fatal(err)
			}
			return len(k.done())
		}
		if got := paste(); got != want {
			t.Errorf("gesture %v: %d texts arrived unasked, want %d", gesture, got, want)
		}
		if !gesture {
			continue
		}
		const control, alt = 0xffe3, 0xffe9
		paste(rfb.Key{Down: true, Sym: control}, rfb.Key{Down: true, Sym: alt}, rfb.Key{Down: true, Sym: 'v'}, rfb.Key{Sym: 'v'}, rfb.Key{Sym: alt}, rfb.Key{Sym: control})
		var texts, letters int
		for _, m := range k.done() {
			switch m := m.(type) {
			case rfb.Text:
				texts++
			case rfb.Key:
				if m.Sym == 'v' {
					letters++
				}
			}
		}
		if texts != 1 || letters != 0 {
			t.Errorf("asked for by Control-Alt-V: %d texts, %d letters; want one and none", texts, letters)
		}
	}
}

func TestASessionIsLeftWhenTheLastViewerLeaves(t *testing.T) {
	w := newWorld(t)
	k := &keyboard{}
	w.viewer(t, k, "one")
	s, err := store.Get[estate.Session](t.Context(), w.store, "main", "one")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is open", func() bool { return w.status(t, "one").State == estate.SessionOpen })
	c, _, err := w.dial(w.ticket(t, s), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := look(c, rfb.Proof{}); err != nil {
		t.Fatal(err)
	}
	c.Close()
	eventually(t, "one of two has left", func() bool { return w.Opened() == 1 })
	if st := w.status(t, "one"); st.State != estate.SessionOpen || !st.Left.IsZero() {
		t.Errorf("with one of two viewers it is %s, left at %s; want it open", st.State, st.Left)
	}
}

func TestTheContextSaysThatPicturesAreMarked(t *testing.T) {
	pictures := map[bool][]byte{}
	for _, marked := range []bool{false, true} {
		w := newWorld(t)
		w.rule(t, func(x *estate.ContextSpec) { x.Watermark = marked })
		v := w.viewer(t, &keyboard{}, "one")
		pictures[marked] = bytes.Clone(v.Image().Pix)
	}
	if want := bytes.Repeat([]byte{0x30, 0x20, 0x10, 0xff}, cells*cells); !bytes.Equal(pictures[false], want) {
		t.Error("without the rule the picture is not what the machine drew")
	}
	if bytes.Equal(pictures[true], pictures[false]) {
		t.Error("with the rule the picture is not marked")
	}
}

// TestTheContextSaysWhichTextsCross tries both directions under each rule, with
// texts as long as the context allows and one byte longer.
func TestTheContextSaysWhichTextsCross(t *testing.T) {
	const most = 20
	for _, in := range []bool{false, true} {
		for _, long := range []bool{false, true} {
			w, k := newWorld(t), &keyboard{}
			w.rule(t, func(x *estate.ContextSpec) { x.Clipboard = estate.Clipboard{In: in, Out: !in, MaxBytes: most} })
			v := w.viewer(t, k, "one")
			text := strings.Repeat("x", most)
			if long {
				text += "x"
			}
			if err := v.Send(rfb.Text{Latin1: []byte(text)}); err != nil {
				t.Fatal(err)
			}
			if err := v.Request(false); err != nil {
				t.Fatal(err)
			}
			if err := v.NextFrame(); err != nil {
				t.Fatal(err)
			}
			if got, want := len(k.done()) > 0, in && !long; got != want {
				t.Errorf("in %v, %d bytes of %d: crossed %v, want %v", in, len(text), most, got, want)
			}
		}
	}
}
