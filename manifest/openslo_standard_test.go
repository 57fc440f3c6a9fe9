package manifest_test

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/manifest"
	"consort.dev/consort/manifest/openslo"
)

// shown is one example.
type shown struct {
	path    string
	nth     int // document of the text, from 1; 0 is the whole file
	kind    string
	refused []string
}

// standard is every example of the standard (OpenSLO/OpenSLO at aa5cb78), and why
// it is refused: each line names the field and says what to do. Those without a
// line are applied, and emitted unchanged in meaning.
var standard = []shown{
	{path: "examples/budgeting-method/occurences-slo.yaml", kind: "SLO"},
	{path: "examples/budgeting-method/ratio-timeslices.yaml", kind: "SLO", refused: []string{
		"spec.budgetingMethod: an average of ratios weighs a quiet minute like a busy one, so it is not counted here; write Occurrences or Timeslices"}},
	{path: "examples/budgeting-method/timeslices-slo.yaml", kind: "SLO", refused: []string{
		"spec.timeWindow[0].duration: 1m is no part of the calendar that is counted here; write 1d, 1w, 1M or 1Q (a small m is minutes)"}},
	{path: "examples/treat-low-traffic-as-equally-important/timeslices-slo.yaml", kind: "SLO"},
	{path: "README.md", nth: 1, kind: "SLO"},
	{path: "README.md", nth: 2, kind: "AlertPolicy", refused: notKept("AlertPolicy")},
	{path: "README.md", nth: 3, kind: "AlertPolicy", refused: notKept("AlertPolicy")},
	{path: "README.md", nth: 4, kind: "AlertCondition", refused: notKept("AlertCondition")},
	{path: "README.md", nth: 5, kind: "AlertNotificationTarget", refused: notKept("AlertNotificationTarget")},
	{path: "README.md", nth: 6, kind: "AlertNotificationTarget", refused: notKept("AlertNotificationTarget")},
}

func notKept(kind string) []string {
	return []string{"kind: a plane keeps no " + kind + " and would not act on it; leave it out of what is applied"}
}

// TestStandardExamplesOfOpenSLO applies and emits what the standard shows: ours
// after it, and with CONSORT_OPENSLO its own.
func TestStandardExamplesOfOpenSLO(t *testing.T) {
	dirs := []string{"testdata/openslo/standard"}
	if dir := os.Getenv("CONSORT_OPENSLO"); dir != "" {
		dirs = append(dirs, dir)
	}
	for _, dir := range dirs {
		nothingElse(t, dir)
		for _, e := range standard {
			t.Run(fmt.Sprintf("%s/%s#%d", dir, e.path, e.nth), func(t *testing.T) {
				text := example(t, filepath.Join(dir, e.path), e.nth)
				docs, err := (&manifest.Loader{Stdin: bytes.NewReader(text)}).LoadOpenSLO("-")
				if err != nil || len(docs) != 1 || docs[0].Header().Kind != e.kind {
					t.Fatalf("%d documents, %v; want one %s\n%s", len(docs), err, e.kind, text)
				}
				set, err := applied(text)
				if len(e.refused) > 0 {
					if got := told(err); !errors.Is(err, fault.Invalid) || !slices.Equal(got, e.refused) {
						t.Errorf("refused with\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(e.refused, "\n"))
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				emitted := emit(t, set.Resources())
				again, err := applied(emitted)
				if err != nil {
					t.Fatalf("what was emitted is not applied: %v\n%s", err, emitted)
				}
				if d := gocmp.Diff(set.Resources(), again.Resources()); d != "" {
					t.Errorf("emitted and applied again (-was +is):\n%s", d)
				}
				back, err := (&manifest.Loader{Stdin: bytes.NewReader(emitted)}).LoadOpenSLO("-")
				if err != nil {
					t.Fatal(err)
				}
				if d := gocmp.Diff(meaning(docs[0].(*openslo.SLO)), meaning(back[0].(*openslo.SLO)), cmpopts.EquateEmpty()); d != "" || len(back) != 1 {
					t.Errorf("%d documents emitted, with another meaning (-standard +emitted):\n%s", len(back), d)
				}
			})
		}
	}
}

// nothingElse fails when the folder has examples that are not in the list.
func nothingElse(t *testing.T, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "examples", "*", "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d examples in %s, %v", len(files), dir, err)
	}
	for _, file := range files {
		path, _ := filepath.Rel(dir, file)
		if !slices.ContainsFunc(standard, func(e shown) bool { return e.path == path }) {
			t.Errorf("%s is an example that nobody tried", file)
		}
	}
	if n := len(blocks(t, filepath.Join(dir, "README.md"))); n != 6 {
		t.Errorf("%d whole documents in the README of %s, want 6", n, dir)
	}
}

var fenced = regexp.MustCompile("(?s)```yaml\n(apiVersion: .*?)```")

// blocks returns the documents in a text that are no schemas: those say "string".
func blocks(t *testing.T, file string) []string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range fenced.FindAllStringSubmatch(string(text), -1) {
		if !strings.Contains(m[1], "name: string") && strings.Contains(m[1], "openslo/v1\n") {
			out = append(out, m[1])
		}
	}
	return out
}

func example(t *testing.T, file string, nth int) []byte {
	t.Helper()
	if nth > 0 {
		return []byte(blocks(t, file)[nth-1])
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func applied(text []byte) (manifest.Set, error) {
	l := manifest.Loader{Project: "default", Known: projects, Stdin: bytes.NewReader(text)}
	return l.Load("-")
}

var where = regexp.MustCompile(`^stdin:\d+:\d+: `)

// told is what an error says, without the places.
func told(err error) []string {
	if err == nil {
		return nil
	}
	lines := strings.Split(err.Error(), "\n")
	for i := range lines {
		lines[i] = where.ReplaceAllString(lines[i], "")
	}
	return lines
}

// emit is what consort get servicelevels -o openslo prints.
func emit(t *testing.T, levels []estate.Resource) []byte {
	t.Helper()
	var docs []openslo.Object
	for _, r := range levels {
		slo, ok := openslo.Of(r.(*estate.ServiceLevel))
		if !ok {
			t.Fatalf("%s has no form in OpenSLO", r.Header().Ref())
		}
		docs = append(docs, slo)
	}
	text, err := manifest.MarshalOpenSLO(docs...)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// meaning is an SLO without what the standard lets one say in several ways, and
// without the name of its indicator, which nobody else can use.
func meaning(s *openslo.SLO) openslo.SLO {
	m := *s
	in := *m.Spec.Indicator
	in.Metadata = openslo.Metadata{}
	if r := in.Spec.RatioMetric; r != nil {
		ratio, yes := *r, true
		ratio.Counter = cmp.Or(ratio.Counter, &yes) // good and total are counted unless it says otherwise
		in.Spec.RatioMetric = &ratio
		m.Spec.Objectives = slices.Clone(m.Spec.Objectives)
		for i := range m.Spec.Objectives {
			m.Spec.Objectives[i].Op = "" // "only needed when using a thresholdMetric"
		}
	}
	m.Spec.Indicator = &in
	m.Spec.BudgetingMethod = cmp.Or(m.Spec.BudgetingMethod, "Occurrences")
	return m
}
