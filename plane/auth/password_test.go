package auth_test

import (
	"fmt"
	"runtime"
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

// TestGuessingAboutAStrangerIsAsMuchWork measures work by the memory that
// argon2id fills, which is what it costs; time depends on who else is busy.
func TestGuessingAboutAStrangerIsAsMuchWork(t *testing.T) {
	w := newWorld(t, auth.Cost{Memory: 8 << 10, Rounds: 1, Threads: 1})
	if err := w.SetPassword(t.Context(), "ana", good); err != nil {
		t.Fatal(err)
	}
	filled := func(status int, sent body) uint64 {
		var before, after runtime.MemStats
		w.pass(time.Hour) // no limit in the way
		runtime.ReadMemStats(&before)
		w.browser(t).want(status, "POST", "/v1/sign-in/password", sent)
		runtime.ReadMemStats(&after)
		return (after.TotalAlloc - before.TotalAlloc) >> 20
	}
	for name, sent := range map[string]body{
		"a person": {"person": "ana", "password": "wrong wrong wrong"}, "one without a password": {"person": "bob", "password": "wrong wrong wrong"},
		"nobody": {"person": "nobody", "password": "wrong wrong wrong"}, "no name at all": {"person": "../x", "password": "wrong wrong wrong"},
	} {
		if got := filled(401, sent); got < 8 || got > 9 {
			t.Errorf("a guess about %s fills %d MiB, want 8", name, got)
		}
	}
	if got := filled(422, body{"nonsense": 1}); got > 1 { // the control
		t.Errorf("an answer without a hash fills %d MiB; the measure is blind", got)
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
