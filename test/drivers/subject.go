package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor"
	"consort.dev/consort/hypervisor/drivertest"
)

// subject is one type of guest on one product by one provider, and what all
// runs of the suite against it found.
type subject struct {
	drivertest.Report
	verdicts map[string]drivertest.Result // by the name of the promise
}

// title names the subject in a line.
func (s *subject) title() string {
	t := s.Provider
	if s.GuestType != "" {
		t += " " + s.GuestType
	}
	return t
}

// read returns what the reports in the folder say, a subject each.
func read(folder string) ([]*subject, error) {
	files, err := filepath.Glob(filepath.Join(folder, "*.json"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("no report in %s; run the tests with %s=%s", folder, drivertest.Results, folder)
	}
	type key struct {
		provider, product, accelerator, guestType string
		simulated                                 bool
	}
	found := map[key]*subject{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var r drivertest.Report
		if err := json.Unmarshal(data, &r); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		k := key{r.Provider, r.Product, r.Accelerator, r.GuestType, r.Simulated}
		if found[k] == nil {
			found[k] = &subject{Report: r, verdicts: map[string]drivertest.Result{}}
		}
		found[k].add(r)
	}
	var all []*subject
	for _, s := range found {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *subject) int {
		return cmp.Or(cmp.Compare(a.Provider, b.Provider), cmp.Compare(a.Product, b.Product),
			cmp.Compare(a.GuestType, b.GuestType), cmp.Compare(a.Accelerator, b.Accelerator))
	})
	return all, nil
}

// rank orders verdicts: what one run kept another may have had to skip, and
// what one broke is broken.
var rank = map[drivertest.Verdict]int{drivertest.Skipped: 1, drivertest.Kept: 2, drivertest.Broken: 3}

// add merges a report. Of two runs that declare differently, as one with
// abilities taken away, that which has a capability counts.
func (s *subject) add(r drivertest.Report) {
	for _, p := range r.Promises {
		if rank[p.Verdict] > rank[s.verdicts[p.Promise].Verdict] {
			s.verdicts[p.Promise] = p
		}
	}
	for _, c := range r.Capabilities {
		i := slices.IndexFunc(s.Capabilities, func(o estate.CapabilityReport) bool { return o.Name == c.Name })
		switch {
		case i < 0:
			s.Capabilities = append(s.Capabilities, c)
		case c.Has && !s.Capabilities[i].Has:
			s.Capabilities[i] = c
		}
	}
}

// kept returns the capabilities all of whose promises were kept, sorted. One
// that says nothing of such a host does not count.
func (s *subject) kept() []estate.Capability {
	whole := map[estate.Capability]bool{}
	for _, v := range s.verdicts {
		if v.Needs == "" || v.Void {
			continue
		}
		before, seen := whole[v.Needs]
		whole[v.Needs] = v.Verdict == drivertest.Kept && (before || !seen)
	}
	kept := []estate.Capability{}
	for c, is := range whole {
		if is {
			kept = append(kept, c)
		}
	}
	slices.Sort(kept)
	return kept
}

// evidence says how a capability of the subject is known.
func (s *subject) evidence(c estate.Capability) estate.Evidence {
	switch {
	case !slices.Contains(s.kept(), c):
		return estate.Declared
	case s.Simulated:
		return estate.Simulated
	}
	return estate.Verified
}

// writeRecord writes what package hypervisor believes.
func writeRecord(path string, all []*subject) error {
	record := []hypervisor.Shown{}
	for _, s := range all {
		record = append(record, hypervisor.Shown{Provider: s.Provider, Product: s.Product, GuestType: s.GuestType,
			Simulated: s.Simulated, Kept: s.kept()})
	}
	data, err := json.MarshalIndent(record, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}
