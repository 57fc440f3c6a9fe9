package hypervisor

import (
	"testing"

	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor/driver"
)

func TestAClaimIsBelievedAsFarAsItWasShown(t *testing.T) {
	const can = estate.CanSave
	shown := func(product, guestType string, simulated bool, kept ...estate.Capability) Shown {
		return Shown{Provider: "p", Product: product, GuestType: guestType, Simulated: simulated, Kept: kept}
	}
	one := driver.Description{Provider: "p", Product: "P 1", Capabilities: []estate.CapabilityReport{{Name: can, Has: true, Evidence: estate.Verified}}}
	two := one
	two.GuestTypes = []string{"a", "b"}
	none := one
	none.Capabilities = []estate.CapabilityReport{{Name: can, Reason: "not built"}}
	for _, c := range []struct {
		name  string
		host  driver.Description
		shown []Shown
		want  estate.Evidence
	}{
		{"nothing was recorded", one, nil, estate.Declared},
		{"another capability was", one, []Shown{shown("P 1", "", false, estate.CanGuest)}, estate.Declared},
		{"on another version", one, []Shown{shown("P 2", "", false, can)}, estate.Declared},
		{"on a simulator", one, []Shown{shown("P 1", "", true, can)}, estate.Simulated},
		{"on the product itself", one, []Shown{shown("P 1", "", false, can)}, estate.Verified},
		{"on both", one, []Shown{shown("P 1", "", true, can), shown("P 1", "", false, can)}, estate.Verified},
		{"for one of two types of guest", two, []Shown{shown("P 1", "a", false, can)}, estate.Declared},
		{"for both types", two, []Shown{shown("P 1", "a", false, can), shown("P 1", "b", false, can)}, estate.Verified},
		{"for one type on a simulator", two, []Shown{shown("P 1", "a", false, can), shown("P 1", "b", true, can)}, estate.Simulated},
		{"what the host lacks", none, []Shown{shown("P 1", "", false, can)}, ""},
	} {
		if got := believed(c.host, c.shown).Capabilities[0].Evidence; got != c.want {
			t.Errorf("%s: evidence = %q, want %q", c.name, got, c.want)
		}
	}
	if one.Capabilities[0].Evidence != estate.Verified {
		t.Error("the driver's own description was changed")
	}
}

func TestTheRecordCanBeRead(t *testing.T) {
	if _, err := Evidence(); err != nil {
		t.Error(err)
	}
}
