package identity_test

import (
	"bytes"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/fault"
	"consort.dev/consort/guest/identity"
)

func some() identity.Identity {
	return identity.Identity{Hostname: "clerk-7", Machine: strings.Repeat("0a", 16), Seed: bytes.Repeat([]byte{0xab}, 32), Now: time.Unix(1700000000, 5),
		Cards: []identity.Card{{Had: "02:00:00:00:00:01", Has: "02:00:00:00:00:0a"}, {Had: "02:00:00:00:00:02", Has: "02:00:00:00:00:0b"}}}
}

func TestTheScriptIsAShells(t *testing.T) {
	script, err := some().Script()
	if err != nil {
		t.Fatal(err)
	}
	check := exec.Command("/bin/sh", "-n")
	check.Stdin = bytes.NewReader(script)
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	first, _, _ := strings.Cut(string(script), "\n")
	want := "now=1700000000.000000005 hostname=clerk-7 machine=" + strings.Repeat("0a", 16) + " seed=" + strings.Repeat("ab", 32) +
		" cards='02:00:00:00:00:01=02:00:00:00:00:0a 02:00:00:00:00:02=02:00:00:00:00:0b'"
	if first != want {
		t.Errorf("the values are %q, want %q", first, want)
	}
}

func TestNothingButValuesReachesTheShell(t *testing.T) {
	for what, spoil := range map[string]func(*identity.Identity){
		"a name with a command":     func(i *identity.Identity) { i.Hostname = "a;reboot" },
		"a name with a line feed":   func(i *identity.Identity) { i.Hostname = "a\nreboot" },
		"no name":                   func(i *identity.Identity) { i.Hostname = "" },
		"a machine ID with a shell": func(i *identity.Identity) { i.Machine = "$(reboot)" },
		"a card with a quote":       func(i *identity.Identity) { i.Cards[0].Has = "02:00:00:00:00:0a';reboot;'" },
		"a card of no template":     func(i *identity.Identity) { i.Cards[1].Had = "" },
		"a short seed":              func(i *identity.Identity) { i.Seed = i.Seed[:31] },
	} {
		i := some()
		spoil(&i)
		if _, err := i.Script(); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: %v, want %v", what, err, fault.Invalid)
		}
	}
}

func TestOnlyAScriptThatCameToItsEndGivesAnIdentity(t *testing.T) {
	if err := identity.Takes(0, []byte("own\n"), nil); err != nil {
		t.Errorf("Takes = %v of a script that ended well", err)
	}
	if err := identity.Takes(0, nil, nil); err == nil {
		t.Error("a script that said nothing gave an identity")
	}
	err := identity.Takes(12, []byte("own\n"), []byte("one\nhostname: no\n"))
	if !errors.Is(err, fault.Internal) || !strings.Contains(err.Error(), "set the hostname (exit 12): hostname: no") {
		t.Errorf("Takes = %v, want the step and the last word", err)
	}
}

func TestHostname(t *testing.T) {
	for name, want := range map[string]string{
		"Clerk 7": "clerk-7", "-x-": "x", "": "desktop", "ünder": "nder", strings.Repeat("a", 70): strings.Repeat("a", 63),
	} {
		if got := identity.Hostname(name); got != want {
			t.Errorf("Hostname(%q) = %q, want %q", name, got, want)
		}
	}
}
