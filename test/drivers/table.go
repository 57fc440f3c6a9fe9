package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor/drivertest"
)

// marks are the verdicts in a cell of a table.
var marks = map[drivertest.Verdict]string{
	"": "·", drivertest.Kept: "kept", drivertest.Skipped: "–", drivertest.Broken: "BROKEN",
}

// names returns the names of all promises, those of the same capability together.
func names(all []*subject) []string {
	needs := map[string]estate.Capability{}
	for _, s := range all {
		for name, v := range s.verdicts {
			needs[name] = v.Needs
		}
	}
	return slices.SortedFunc(maps.Keys(needs), func(a, b string) int {
		if c := strings.Compare(string(needs[a]), string(needs[b])); c != 0 {
			return c
		}
		return strings.Compare(a, b)
	})
}

// printTable prints promises x providers.
func printTable(out io.Writer, all []*subject) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "promise")
	for _, s := range all {
		fmt.Fprint(w, "\t", s.title())
	}
	fmt.Fprintln(w)
	for _, name := range names(all) {
		fmt.Fprint(w, name)
		for _, s := range all {
			fmt.Fprint(w, "\t", marks[s.verdicts[name].Verdict])
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w)
	fmt.Fprintln(w, "on\tproduct\taccelerator\tkept\tskipped\tbroken\tcapabilities shown")
	for _, s := range all {
		n := s.count()
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%d\t%d of %d\n", s.title(), s.product(), s.Accelerator,
			n[drivertest.Kept], n[drivertest.Skipped], n[drivertest.Broken], len(s.kept()), len(s.has()))
	}
	w.Flush()
}

// printBroken says what was broken and how, and returns how much.
func printBroken(out io.Writer, all []*subject) (n int) {
	for _, s := range all {
		for _, name := range slices.Sorted(maps.Keys(s.verdicts)) {
			if v := s.verdicts[name]; v.Verdict == drivertest.Broken {
				n++
				fmt.Fprintf(out, "BROKEN %s by %s: %s\n", name, s.title(), v.Reason)
			}
		}
	}
	return n
}

func (s *subject) count() map[drivertest.Verdict]int {
	n := map[drivertest.Verdict]int{}
	for _, v := range s.verdicts {
		n[v.Verdict]++
	}
	return n
}

// has returns the capabilities that the subject declares.
func (s *subject) has() []estate.Capability {
	var all []estate.Capability
	for _, c := range s.Capabilities {
		if c.Has {
			all = append(all, c.Name)
		}
	}
	return all
}

// product is the vendor's name and version, and what it is not.
func (s *subject) product() string {
	if s.Simulated {
		return s.Product + " (simulated)"
	}
	return s.Product
}

// The lines between which docs/drivers.md is generated.
const (
	beginMark = "<!-- begin: written by test/drivers -->"
	endMark   = "<!-- end: written by test/drivers -->"
)

// writeDocs replaces what lies between the marks of the page.
func writeDocs(path string, all []*subject) error {
	page, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(page), beginMark)
	_, after, ok2 := strings.Cut(rest, endMark)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no lines %q and %q", path, beginMark, endMark)
	}
	var b strings.Builder
	writeProducts(&b, all)
	writeCapabilities(&b, all)
	writePromises(&b, all)
	return os.WriteFile(path, []byte(before+beginMark+"\n\n"+b.String()+endMark+after), 0o644)
}

// row writes one line of a table.
func row(b *strings.Builder, cells ...string) {
	for _, c := range cells {
		b.WriteString("| " + strings.NewReplacer("|", "\\|", "\n", " ").Replace(c) + " ")
	}
	b.WriteString("|\n")
}

// head writes the first two lines of a table.
func head(b *strings.Builder, cells ...string) {
	row(b, cells...)
	row(b, slices.Repeat([]string{"---"}, len(cells))...)
}

func writeProducts(b *strings.Builder, all []*subject) {
	head(b, "provider", "product driven", "accelerator", "promises kept", "skipped", "broken")
	for _, s := range all {
		n := s.count()
		row(b, s.title(), s.product(), s.Accelerator, fmt.Sprint(n[drivertest.Kept]), fmt.Sprint(n[drivertest.Skipped]), fmt.Sprint(n[drivertest.Broken]))
	}
}

// writeCapabilities writes what each can do and how that is known, and below
// the table why it cannot do the rest.
func writeCapabilities(b *strings.Builder, all []*subject) {
	b.WriteString("\n### Capabilities\n\n")
	titles, every := []string{"capability"}, map[estate.Capability]bool{}
	for _, s := range all {
		titles = append(titles, s.title())
		for _, c := range s.Capabilities {
			every[c.Name] = true
		}
	}
	head(b, titles...)
	var reasons strings.Builder
	for _, c := range slices.Sorted(maps.Keys(every)) {
		cells := []string{string(c)}
		for _, s := range all {
			report := estate.Capable(s.Capabilities, s.GuestType, c)
			cells = append(cells, cell(s, report))
			if !report.Has && reported(s, c) {
				fmt.Fprintf(&reasons, "- %s, no %s: %s\n", s.title(), c, report.Reason)
			}
		}
		row(b, cells...)
	}
	b.WriteString("\n" + reasons.String())
}

func cell(s *subject, c estate.CapabilityReport) string {
	switch {
	case !c.Has:
		return "–"
	case c.Value == "" || len(c.Value) > 20:
		return string(s.evidence(c.Name))
	}
	return fmt.Sprintf("%s (%s)", s.evidence(c.Name), c.Value)
}

func writePromises(b *strings.Builder, all []*subject) {
	b.WriteString("\n### Promises\n\n")
	titles := []string{"promise"}
	for _, s := range all {
		titles = append(titles, s.title())
	}
	head(b, titles...)
	for _, name := range names(all) {
		cells := []string{name}
		for _, s := range all {
			cells = append(cells, marks[s.verdicts[name].Verdict])
		}
		row(b, cells...)
	}
	b.WriteString("\n")
}

// reported says whether the subject speaks of the capability at all.
func reported(s *subject, name estate.Capability) bool {
	return slices.ContainsFunc(s.Capabilities, func(c estate.CapabilityReport) bool { return c.Name == name })
}
