package vnc_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/internal/rfb"
	"consort.dev/consort/presentation/driver"
	"consort.dev/consort/presentation/vnc"
)

// TestClipboardMatrix copies texts of several lengths and alphabets both ways
// under every policy, between ends of either form: nothing arrives in a direction
// that is denied or beyond the length, and all that is allowed arrives whole. The
// classic form has Latin-1 alone; what that lacks arrives as a question mark. The
// extended form has one kind of line ends.
func TestClipboardMatrix(t *testing.T) {
	for _, most := range []int{100, 4096, 1 << 20} {
		for _, forms := range [][2]bool{{false, false}, {true, true}, {true, false}, {false, true}} {
			for _, policy := range [][2]bool{{false, false}, {true, false}, {false, true}, {true, true}} {
				t.Run(fmt.Sprintf("most %d, extended %v, allowed %v", most, forms, policy), func(t *testing.T) {
					t.Parallel()
					clipboardRow(t, most, forms, policy)
				})
			}
		}
	}
}

func clipboardRow(t *testing.T, most int, forms, policy [2]bool) {
	s := serve(t, nil, driver.Session{Policy: driver.Policy{Clipboard: estate.Clipboard{In: policy[0], Out: policy[1], MaxBytes: estate.Bytes(most)}}})
	r := rig(vnc.New(vnc.Config{Random: rand.Reader}), forms)
	m := r.Machine(s.machine).(*machine)
	opened, err := r.Viewer(s.viewer, "")
	if err != nil {
		t.Fatal(err)
	}
	v := opened.(*viewer)
	s.viewer.SetDeadline(time.Now().Add(time.Minute))
	looks := func(n int) {
		for range n {
			if err := v.Look(); err != nil {
				t.Fatal(err)
			}
		}
	}
	looks(3) // the ends agree on their form
	m.mu.Lock()
	speaks := [2]bool{v.speaks, m.speaks}
	m.mu.Unlock()
	if forms[0] && forms[1] && (policy[0] || policy[1]) && speaks != forms {
		t.Fatalf("extended are %v, want both", speaks)
	}
	crossed := 0
	for alphabet, letter := range map[string]string{"ASCII": "a", "Latin-1": "é", "Greek": "λ", "emoji": "\U0001F600", "line ends": "\r\n"} {
		for _, length := range []int{1, 100, 4096, most, most + 1} {
			if length > 1<<20 {
				continue // more than these ends read
			}
			text := strings.Repeat(letter, length/len(letter)) + strings.Repeat("x", length%len(letter))
			for _, direction := range []struct {
				name      string
				from, to  bool // which end speaks the extended form
				copy      func(string) error
				came      func() string
				forget    func()
				permitted bool
			}{
				{"in", speaks[0], speaks[1], v.Paste, m.Pasted, func() { m.mu.Lock(); m.pasted = ""; m.mu.Unlock() }, policy[0]},
				{"out", speaks[1], speaks[0], m.Copy, v.Copied, func() { v.copied = "" }, policy[1]},
			} {
				sent, want := as(direction.from, text), ""
				long := len(sent)
				if direction.from {
					long = len(text) // line ends are two bytes on their way
				}
				if direction.permitted && long <= most {
					want = as(direction.to, sent)
				}
				direction.forget()
				if err := direction.copy(text); err != nil {
					t.Fatal(err)
				}
				ctx, stop := context.WithTimeout(t.Context(), 5*time.Second)
				for looks(4); direction.came() != want && want != "" && ctx.Err() == nil; looks(1) {
				}
				stop()
				if got := direction.came(); got != want {
					t.Fatalf("%s, %s of %d bytes, extended %v: %d bytes arrived, want %d", direction.name, alphabet, len(text), speaks, len(got), len(want))
				}
				if want != "" {
					crossed++
				}
			}
		}
	}
	if (crossed > 0) != (policy[0] || policy[1]) {
		t.Errorf("%d texts crossed", crossed)
	}
}

// as is the text after it went by that form.
func as(extended bool, text string) string {
	if extended {
		return strings.ReplaceAll(text, "\r\n", "\n")
	}
	return rfb.FromLatin1(rfb.Latin1(text))
}
