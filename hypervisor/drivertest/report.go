package drivertest

import (
	"cmp"
	"context"
	"encoding/json"
	"os"

	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor/driver"
)

// Report is what a run of the suite found out about a host. It holds no secret
// and no name of ours.
type Report struct {
	Provider    string   `json:"provider"`
	Product     string   `json:"product"`
	Accelerator string   `json:"accelerator"`
	GuestType   string   `json:"guestType,omitempty"`
	Simulated   bool     `json:"simulated"`
	Promises    []Result `json:"promises"`

	// Capabilities are those the host declares, and why it lacks others.
	Capabilities []estate.CapabilityReport `json:"capabilities"`
}

// Result is what became of one promise.
type Result struct {
	Promise string            `json:"name"`
	Needs   estate.Capability `json:"needs,omitempty"`
	Verdict Verdict           `json:"result"`
	Reason  string            `json:"reason,omitempty"`
	Void    bool              `json:"void,omitempty"` // skipped, since it says nothing of such a host
}

// Verdict is whether a promise is kept.
type Verdict string

// The verdicts.
const (
	Kept    Verdict = "kept"
	Skipped Verdict = "skipped" // it could not be tried; Reason says why
	Broken  Verdict = "broken"
)

func (b Bench) report(d driver.Description) Report {
	guestType := b.GuestType
	if len(d.GuestTypes) > 0 {
		guestType = cmp.Or(guestType, d.GuestTypes[0])
	}
	r := Report{Provider: d.Provider, Product: d.Product, Accelerator: d.Accelerator, GuestType: guestType, Simulated: b.Simulated}
	for _, c := range d.Capabilities {
		if c.GuestType == "" || c.GuestType == guestType {
			r.Capabilities = append(r.Capabilities, c)
		}
	}
	return r
}

// Results is the environment variable that names the folder into which each run
// of the suite writes its report. Where it is not set, nothing is written.
const Results = "CONSORT_RESULTS"

// recorder collects the report of one run.
type recorder struct {
	t       ending
	report  Report
	results []Result
}

// ending is a test as far as its end goes.
type ending interface {
	Cleanup(func())
	Error(args ...any)
}

// newRecorder returns a recorder that writes its report when the test ends.
func newRecorder(t ending) *recorder {
	r := &recorder{t: t}
	if dir := os.Getenv(Results); dir != "" {
		t.Cleanup(func() { r.write(dir) })
	}
	return r
}

// judge tries the promise on a bench, notes what came of it and has the test
// say so. The benches of one run are all of the same kind.
func judge[T Test[T]](r *recorder, t T, p promise, b Bench) {
	if d, err := b.Host.Describe(t.Context()); err == nil {
		r.report = b.report(d)
	}
	result := p.try(t.Context(), b)
	r.results = append(r.results, result)
	switch result.Verdict {
	case Broken:
		t.Error(result.Reason)
	case Skipped:
		t.Skip(result.Reason)
	case Kept:
		if result.Reason != "" {
			t.Logf("%s", result.Reason)
		}
	}
}

// OwnTest is what Shows asks of a test; *testing.T is one.
type OwnTest interface {
	Context() context.Context
	Name() string
	Cleanup(func())
	Error(args ...any)
	Failed() bool
	Skipped() bool
}

// Shows has a test of the provider's own count as a promise of a capability that
// the suite has none of, as how machines join a network: kept if it passes.
func Shows(t OwnTest, b Bench, c estate.Capability) {
	d, err := b.Host.Describe(t.Context())
	if err != nil {
		t.Error(err)
		return
	}
	r := newRecorder(t)
	r.report = b.report(d)
	t.Cleanup(func() { // before that of the recorder
		result := Result{Promise: t.Name(), Needs: c, Verdict: Kept}
		switch {
		case t.Failed():
			result.Verdict, result.Reason = Broken, "the test fails"
		case t.Skipped():
			result.Verdict, result.Reason = Skipped, "the test was skipped"
		}
		r.results = append(r.results, result)
	})
}

func (r *recorder) write(dir string) {
	if r.report.Provider == "" {
		return // nothing was tried
	}
	r.report.Promises = r.results
	f, err := os.CreateTemp(dir, r.report.Provider+"-*.json")
	if err != nil {
		r.t.Error(err)
		return
	}
	defer f.Close()
	out := json.NewEncoder(f)
	out.SetIndent("", " ")
	if err := out.Encode(r.report); err != nil {
		r.t.Error(err)
	}
}
