package auth_test

import (
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"consort.dev/consort/fault"
	"consort.dev/consort/plane/auth"
)

const good = "correct horse battery"

func TestPasswordSignsIn(t *testing.T) {
	w := newWorld(t, cheap)
	if err := w.SetPassword(t.Context(), "ana", good); err != nil {
		t.Fatal(err)
	}
	b := w.browser(t)
	b.want(200, "POST", "/v1/sign-in/password", body{"person": " Ana ", "password": good})
	if c, err := b.who(); err != nil || c.Person != "ana" {
		t.Errorf("signed in as %+v, %v", c, err)
	}
	for _, wrong := range []body{
		{"person": "ana", "password": good + "x"}, {"person": "ana", "password": ""},
		{"person": "bob", "password": good}, {"person": "nobody", "password": good}, {"person": "../x", "password": good},
	} {
		answer := w.browser(t).want(401, "POST", "/v1/sign-in/password", wrong)
		if got, want := answer["detail"], "the name or the password is wrong"; got != want {
			t.Errorf("%v: %q, want %q", wrong, got, want)
		}
	}
}

func TestPasswordKeepsItsOwnCost(t *testing.T) {
	w := newWorld(t, cheap)
	if err := w.SetPassword(t.Context(), "ana", good); err != nil {
		t.Fatal(err)
	}
	dearer, err := auth.New(auth.Options{Store: w.store, Now: w.clock, Random: zero{}, Cost: auth.Cost{Memory: 128, Rounds: 2, Threads: 1}})
	if err != nil {
		t.Fatal(err)
	}
	w.Auth = dearer
	w.browser(t).want(200, "POST", "/v1/sign-in/password", body{"person": "ana", "password": good})
}

// zero is no randomness at all.
type zero struct{}

func (zero) Read(p []byte) (int, error) { return len(p), nil }

func TestWeakPasswordsAreRefusedWithAReason(t *testing.T) {
	w := newWorld(t, cheap)
	for _, weak := range []string{"", "short", "ninechars", string(make([]byte, 300))} {
		wantKind(t, fmt.Sprintf("a password of %d bytes", len(weak)), w.SetPassword(t.Context(), "ana", weak), fault.Invalid)
	}
}

func TestChangingThePasswordNeedsAFreshSignInOrTheOldOne(t *testing.T) {
	w := newWorld(t, cheap)
	ana, other := w.browser(t).signIn("ana"), w.browser(t).signIn("ana")
	ana.want(200, "POST", "/v1/me/password", body{"password": good})
	_, err := other.who()
	wantKind(t, "another sign-in after the password changed", err, fault.Unauthenticated)
	w.pass(11 * time.Minute)
	ana.want(403, "POST", "/v1/me/password", body{"password": "another good one"})
	ana.want(403, "POST", "/v1/me/password", body{"password": "another good one", "current": "wrong"})
	ana.want(200, "POST", "/v1/me/password", body{"password": "another good one", "current": good})
	w.browser(t).want(401, "POST", "/v1/sign-in/password", body{"person": "ana", "password": good})
	w.browser(t).want(200, "POST", "/v1/sign-in/password", body{"person": "ana", "password": "another good one"})
}

func TestGuessingAboutAStrangerTakesAsLong(t *testing.T) {
	w := newWorld(t, auth.Cost{Memory: 8 << 10, Rounds: 2, Threads: 1})
	if err := w.SetPassword(t.Context(), "ana", good); err != nil {
		t.Fatal(err)
	}
	median := func(person string) time.Duration {
		var took []time.Duration
		for i := range 9 {
			b := w.browser(t)
			b.from = fmt.Sprintf("198.51.100.%d:1", i)
			w.pass(time.Minute) // no limit in the way
			began := time.Now()
			b.want(401, "POST", "/v1/sign-in/password", body{"person": person, "password": "wrong wrong wrong"})
			took = append(took, time.Since(began))
		}
		slices.Sort(took)
		return took[len(took)/2]
	}
	known, without, unknown := median("ana"), median("bob"), median("nobody")
	t.Logf("known %v, known without password %v, unknown %v", known, without, unknown)
	for _, other := range []time.Duration{without, unknown} {
		if other < known/2 || other > known*2 {
			t.Errorf("a guess takes %v for ana and %v for somebody else", known, other)
		}
	}
	// The control: an answer without a hash is told apart by this measure.
	began := time.Now()
	w.browser(t).want(422, "POST", "/v1/sign-in/password", body{"nonsense": 1})
	if took := time.Since(began); took > known/2 {
		t.Errorf("an answer without work takes %v, with work %v; the measure is blind", took, known)
	}
}

func TestGuessingIsLimitedForAPerson(t *testing.T) {
	w := newWorld(t, cheap)
	if err := w.SetPassword(t.Context(), "ana", good); err != nil {
		t.Fatal(err)
	}
	refused := 0
	for i := range 30 {
		b := w.browser(t)
		b.from = fmt.Sprintf("198.51.100.%d:1", i)
		status, _, header := b.send("POST", "/v1/sign-in/password", body{"person": "ana", "password": "wrong wrong wrong"})
		if status != 429 {
			continue
		}
		refused++
		if after, err := strconv.Atoi(header.Get("Retry-After")); err != nil || after < 1 || after > 60 {
			t.Errorf("Retry-After %q, want some seconds", header.Get("Retry-After"))
		}
	}
	if refused != 20 {
		t.Errorf("%d of 30 guesses from 30 addresses refused, want 20", refused)
	}
	bob := w.browser(t).signIn("bob")
	bob.want(200, "POST", "/v1/me/password", body{"password": good})
	w.browser(t).want(200, "POST", "/v1/sign-in/password", body{"person": "bob", "password": good})
	w.pass(time.Minute)
	w.browser(t).want(200, "POST", "/v1/sign-in/password", body{"person": "ana", "password": good})
}

func TestGuessingIsLimitedForAnAddress(t *testing.T) {
	w := newWorld(t, cheap)
	count := map[int]int{}
	for i := range 50 {
		b := w.browser(t)
		b.from = fmt.Sprintf("[2001:db8::%x]:1", i) // one household
		status, _, _ := b.send("POST", "/v1/sign-in/code", body{"code": fmt.Sprint(i)})
		count[status]++
	}
	if count[401] != 20 || count[429] != 30 {
		t.Errorf("answers %v, want 20 guesses and 30 refusals", count)
	}
	other := w.browser(t)
	other.from = "[2001:db8:1::1]:1"
	other.want(401, "POST", "/v1/sign-in/code", body{"code": "x"})
}
