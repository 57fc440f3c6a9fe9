package hypervisor

import (
	_ "embed"
	"encoding/json"
	"slices"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// Shown is what runs of the conformance suite have shown of one product: the
// capabilities all of whose promises it kept.
type Shown struct {
	Provider  string              `json:"provider"`
	Product   string              `json:"product"` // name and version as the host gives them
	GuestType string              `json:"guestType,omitempty"`
	Simulated bool                `json:"simulated,omitempty"` // it stood in for the vendor's
	Kept      []estate.Capability `json:"kept"`
}

// evidence is written by test/drivers from the suite's own reports.
//
//go:embed evidence.json
var evidence []byte

// Evidence returns what has been shown so far.
func Evidence() ([]Shown, error) {
	var all []Shown
	if err := json.Unmarshal(evidence, &all); err != nil {
		return nil, fault.Internal.Errorf("read what the suite has shown: %w", err)
	}
	return all, nil
}

// believed returns the description with what is known of each claim, which is
// not for the driver to say: a claim that was never put to the test on exactly
// this product is no more than declared.
func believed(d driver.Description, all []Shown) driver.Description {
	d.Capabilities = slices.Clone(d.Capabilities)
	for i, c := range d.Capabilities {
		types := []string{c.GuestType}
		if c.GuestType == "" && len(d.GuestTypes) > 0 {
			types = d.GuestTypes
		}
		d.Capabilities[i].Evidence = ""
		if c.Has {
			d.Capabilities[i].Evidence = weakest(d, c.Name, types, all)
		}
	}
	return d
}

// weakest returns how the claim is known for that type of guest of which least
// is known.
func weakest(d driver.Description, name estate.Capability, types []string, all []Shown) estate.Evidence {
	level := estate.Verified
	for _, t := range types {
		real, simulated := false, false
		for _, s := range all {
			if s.Provider == d.Provider && s.Product == d.Product && s.GuestType == t && slices.Contains(s.Kept, name) {
				real, simulated = real || !s.Simulated, simulated || s.Simulated
			}
		}
		switch {
		case real:
		case simulated:
			level = estate.Simulated
		default:
			return estate.Declared
		}
	}
	return level
}
