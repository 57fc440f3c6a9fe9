package manifest_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"pgregory.net/rapid"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/manifest"
	"consort.dev/consort/manifest/openslo"
)

// TestWrongOpenSLO holds the exact text of what people read when they are wrong.
func TestWrongOpenSLO(t *testing.T) {
	files, err := filepath.Glob("testdata/openslo/wrong/*.yaml")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d wrong documents, %v; want at least 20", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			docs, err := new(manifest.Loader).LoadOpenSLO(file)
			if !errors.Is(err, fault.Invalid) || len(docs) != 0 {
				t.Fatalf("LoadOpenSLO = %d documents, %v; want a fault.Invalid alone", len(docs), err)
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".golden", []byte(err.Error()+"\n"))
		})
	}
}

// TestOpenSLOComesBackUnchanged reads, writes and reads again, with every kind
// in it. CONSORT_OPENSLO names a checkout of the standard, whose own examples are
// tried then.
func TestOpenSLOComesBackUnchanged(t *testing.T) {
	files, err := filepath.Glob("testdata/openslo/right/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if dir := os.Getenv("CONSORT_OPENSLO"); dir != "" {
		own, err := filepath.Glob(filepath.Join(dir, "examples", "*", "*.yaml"))
		if err != nil || len(own) == 0 {
			t.Fatalf("%d examples in %s, %v", len(own), dir, err)
		}
		files = append(files, own...)
	}
	kinds := map[string]bool{}
	for _, file := range files {
		docs, err := new(manifest.Loader).LoadOpenSLO(file)
		if err != nil {
			t.Errorf("%s:\n%v", file, err)
			continue
		}
		for _, d := range docs {
			kinds[d.Header().Kind] = true
		}
		text, err := manifest.MarshalOpenSLO(docs...)
		if err != nil {
			t.Fatal(err)
		}
		l := manifest.Loader{Stdin: bytes.NewReader(text)}
		again, err := l.LoadOpenSLO("-")
		if err != nil {
			t.Fatalf("%s is not read back:\n%v\n%s", file, err, text)
		}
		if d := cmp.Diff(docs, again, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%s came back otherwise (-read +read again):\n%s\n%s", file, d, text)
		}
		if strings.HasPrefix(file, "testdata") {
			golden(t, strings.TrimSuffix(file, ".yaml")+".golden", text)
		}
	}
	for _, o := range openslo.Kinds() {
		if !kinds[o.Header().Kind] {
			t.Errorf("no example has a %s", o.Header().Kind)
		}
	}
}

// TestOpenSLOIsApplied holds the service levels that SLOs become, and that what
// they are emitted as becomes them again.
func TestOpenSLOIsApplied(t *testing.T) {
	l := manifest.Loader{Project: "default", Known: projects}
	set, err := l.Load("testdata/openslo/apply.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var levels []byte
	var docs []openslo.Object
	for _, r := range set.Resources() {
		text, err := manifest.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		levels = append(append(levels, "---\n"...), text...)
		slo, ok := openslo.Of(r.(*estate.ServiceLevel))
		if !ok {
			t.Fatalf("%s has no form in OpenSLO", r.Header().Ref())
		}
		docs = append(docs, slo)
	}
	golden(t, "testdata/openslo/apply.levels.golden", levels)
	emitted, err := manifest.MarshalOpenSLO(docs...)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/openslo/apply.emitted.golden", emitted)
	l.Stdin = bytes.NewReader(emitted)
	again, err := l.Load("-")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(set.Resources(), again.Resources()); d != "" {
		t.Errorf("emitted and applied again (-was +is):\n%s", d)
	}
}

func projects(estate.Kind, string) ([]string, error) { return []string{"default"}, nil }

// TestOpenSLOThatCannotBeApplied holds what is told of right documents that say
// more than a service level can.
func TestOpenSLOThatCannotBeApplied(t *testing.T) {
	l := manifest.Loader{Project: "default", Known: projects}
	set, err := l.Load("testdata/openslo/refused.yaml")
	if !errors.Is(err, fault.Invalid) || len(set.Objects) != 0 {
		t.Fatalf("Load = %d objects, %v; want a fault.Invalid alone", len(set.Objects), err)
	}
	golden(t, "testdata/openslo/refused.golden", []byte(err.Error()+"\n"))
}

// TestLevelsComeBackFromOpenSLO draws levels that queries measure.
func TestLevelsComeBackFromOpenSLO(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := estate.KindOf[estate.ServiceLevel]().NewNamed("default", "one").(*estate.ServiceLevel)
		in := &estate.Indicator{Total: query(t), Good: query(t)}
		switch rapid.IntRange(0, 2).Draw(t, "measured by") {
		case 1:
			in.Good, in.Bad = nil, query(t)
		case 2:
			in = &estate.Indicator{Value: query(t), Is: rapid.SampledFrom([]estate.Comparison{"lt", "lte", "gt", "gte"}).Draw(t, "is"), Bound: rapid.Float64Range(-1e9, 1e9).Draw(t, "bound")}
		}
		share := rapid.Int64Range(1, 999_999)
		want.Spec.Application, want.Spec.Response, want.Spec.Target = "shop", &estate.Response{Measured: in}, estate.Share(share.Draw(t, "target"))
		want.Spec.Title = rapid.StringMatching(`[ -~]{0,20}|[a: ]{0,8}`).Draw(t, "title")
		if rapid.Bool().Draw(t, "slices") {
			want.Spec.Slice = &estate.Slice{Length: estate.Duration(rapid.Int64Range(1, 60).Draw(t, "minutes")) * estate.Duration(time.Minute), Good: estate.Share(share.Draw(t, "good"))}
		}
		switch rapid.IntRange(0, 2).Draw(t, "window") {
		case 1:
			want.Spec.Window.Last = estate.Duration(rapid.Int64Range(60, 92*24*60).Draw(t, "last")) * estate.Duration(time.Minute)
		case 2:
			want.Spec.Window = estate.Window{Calendar: rapid.SampledFrom([]estate.Calendar{"day", "week", "month", "quarter"}).Draw(t, "calendar"),
				TimeZone: rapid.SampledFrom([]string{"", "Europe/Berlin"}).Draw(t, "zone"),
				Begins:   rapid.SampledFrom([]string{"", "2022-01-01 12:00:00", "2026-01-06 00:01:00"}).Draw(t, "begins")}
		}
		if problems := estate.Check(want); len(problems) > 0 {
			t.Fatal(problems)
		}
		slo, ok := openslo.Of(want)
		if !ok {
			t.Fatal("has no form in OpenSLO")
		}
		text, err := manifest.MarshalOpenSLO(slo)
		if err != nil {
			t.Fatal(err)
		}
		l := manifest.Loader{Project: "default", Known: projects, Stdin: bytes.NewReader(text)}
		set, err := l.Load("-")
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if d := cmp.Diff([]estate.Resource{want}, set.Resources()); d != "" {
			t.Fatalf("(-was +is):\n%s\n%s", d, text)
		}
	})
}

func query(t *rapid.T) *estate.Query {
	q := &estate.Query{Query: rapid.StringMatching(`[a-z][ -~]{0,20}`).Draw(t, "query")}
	if rapid.Bool().Draw(t, "elsewhere") {
		q.Source, q.From = "Datadog", rapid.SampledFrom([]string{"", "theirs"}).Draw(t, "from")
		q.With = map[string]string{"region": rapid.StringMatching(`[ -~]{0,8}`).Draw(t, "region")}
	}
	return q
}

func FuzzOpenSLO(f *testing.F) {
	files, err := filepath.Glob("testdata/openslo/*/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for doc := range bytes.SplitSeq(text, []byte("---\n")) {
			f.Add(doc)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		docs, err := (&manifest.Loader{Stdin: bytes.NewReader(text)}).LoadOpenSLO("-")
		_, _ = (&manifest.Loader{Stdin: bytes.NewReader(text), Project: "default", Known: projects}).Load("-") // must not panic
		if err != nil {
			if !errors.Is(err, fault.Invalid) || len(docs) > 0 {
				t.Errorf("%d documents and %v, want a fault.Invalid alone", len(docs), err)
			}
			return
		}
		written, err := manifest.MarshalOpenSLO(docs...)
		if err != nil {
			t.Fatal(err)
		}
		again, err := (&manifest.Loader{Stdin: bytes.NewReader(written)}).LoadOpenSLO("-")
		if err != nil {
			t.Fatalf("what was written is not read: %v\n%s", err, written)
		}
		if d := cmp.Diff(docs, again, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("came back otherwise:\n%s\n%s", d, written)
		}
	})
}
