package manifest_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/manifest"
)

var update = flag.Bool("update", false, "rewrite goldens and schemas")

func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; run with -update", err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs; got\n%s\nwant\n%s", file, got, want)
	}
}

// TestWrongManifests holds the exact text of what people read when they are wrong.
func TestWrongManifests(t *testing.T) {
	files, err := filepath.Glob("testdata/wrong/*.yaml")
	if err != nil || len(files) < 30 {
		t.Fatalf("%d wrong manifests, %v; want at least 30", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			set, err := manifest.Load(file)
			if !errors.Is(err, fault.Invalid) {
				t.Fatalf("Load = %v, want a fault.Invalid", err)
			}
			if len(set.Objects) != 0 {
				t.Errorf("a wrong set still holds %d objects", len(set.Objects))
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".golden", []byte(err.Error()+"\n"))
		})
	}
}

func TestRightManifestsLoad(t *testing.T) {
	set, err := manifest.Load("testdata/right")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, it := range set.Objects {
		got = append(got, it.Resource.Header().Ref().String())
	}
	want := "project/lab person/bo context/lab/red image/lab/tiny blueprint/lab/one desktop/lab/bo-one"
	if strings.Join(got, " ") != want {
		t.Errorf("objects = %s\nwant      %s (what is referred to comes first)", strings.Join(got, " "), want)
	}
	b := set.Objects[4].Resource.(*estate.Blueprint)
	if b.Spec.Size.Memory != 512*estate.MiB || b.Spec.Hypervisor.Labels["rack"] != "7" {
		t.Errorf("spec = %+v", b.Spec)
	}
}

func TestErrorsOfAllFilesAreToldAtOnce(t *testing.T) {
	_, err := manifest.Load("testdata/wrong")
	es, ok := manifest.ErrorsIn(err)
	if !ok {
		t.Fatalf("Load = %v", err)
	}
	files := map[string]bool{}
	for i, e := range es {
		files[e.File] = true
		if i > 0 && es[i-1].File > e.File {
			t.Errorf("%s comes after %s", e.File, es[i-1].File)
		}
	}
	if len(files) < 30 {
		t.Errorf("errors speak of %d files", len(files))
	}
}

func TestStdinProjectAndKnownNames(t *testing.T) {
	const text = "apiVersion: consort.dev/v1\nkind: Desktop\nmetadata: {name: one}\nspec: {blueprint: office, person: ana}\n"
	asked := 0
	l := manifest.Loader{Stdin: strings.NewReader(text), Project: "default",
		Known: func(kind estate.Kind, project string) ([]string, error) {
			asked++
			return map[estate.Kind][]string{"Blueprint": {"office"}, "Person": {"ana"}}[kind], nil
		}}
	set, err := l.Load("-")
	if err != nil || len(set.Objects) != 1 || set.Objects[0].Resource.Header().Metadata.Project != "default" {
		t.Fatalf("Load = %+v, %v", set, err)
	}
	if asked != 2 {
		t.Errorf("asked %d times, want once for each kind", asked)
	}
	l.Stdin, l.Known = strings.NewReader(text), func(estate.Kind, string) ([]string, error) {
		return nil, fault.Unavailable.Errorf("the plane is away")
	}
	if _, err := l.Load("-"); !errors.Is(err, fault.Unavailable) {
		t.Errorf("Load without an answer = %v, want Unavailable", err)
	}
}

func TestWhatCannotBeRead(t *testing.T) {
	empty := t.TempDir()
	big := filepath.Join(empty, "big")
	if err := os.WriteFile(big, bytes.Repeat([]byte("#\n"), 3<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path, want string
		kind       fault.Kind
	}{
		{"testdata/nothing.yaml", "testdata/nothing.yaml: no such file or folder", fault.NotFound},
		{empty, "no manifests in this folder", fault.NotFound},
		{big, "larger than 4 MiB", fault.Invalid},
		{os.DevNull, "no objects in it", fault.Invalid},
	} {
		_, err := manifest.Load(c.path)
		if fault.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Load(%s) = %v, want %v: %s", c.path, err, c.kind, c.want)
		}
	}
}

// TestSchemasAreCurrent keeps manifest/schema in step with the words.
func TestSchemasAreCurrent(t *testing.T) {
	all, err := manifest.Schemas()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range all {
		if !json.Valid(text) {
			t.Errorf("%s is not JSON", name)
		}
		golden(t, filepath.Join("schema", name), text)
	}
	files, err := filepath.Glob("schema/*.json")
	if err != nil || len(files) != len(all) {
		t.Errorf("%d files in schema/, want %d (%v)", len(files), len(all), err)
	}
}

func FuzzLoad(f *testing.F) {
	files, err := filepath.Glob("testdata/*/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		if len(text) < 4<<10 { // long ones only make every step slow
			f.Add(text)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		l := manifest.Loader{Stdin: bytes.NewReader(text), Project: "default"}
		set, err := l.Load("-")
		if err != nil {
			if len(set.Objects) > 0 {
				t.Error("objects beside an error")
			}
			es, _ := manifest.ErrorsIn(err)
			for _, e := range es {
				if e.Line < 1 || e.Column < 1 || e.Text == "" {
					t.Errorf("an error without a place or a text: %+v", e)
				}
			}
			return
		}
		for _, it := range set.Objects {
			again, err := manifest.Marshal(it.Resource)
			if err != nil {
				t.Fatalf("Marshal: %v", err)
			}
			back := manifest.Loader{Stdin: bytes.NewReader(again), Known: func(estate.Kind, string) ([]string, error) { return nil, nil }}
			if _, err := back.Load("-"); err != nil && !strings.Contains(err.Error(), "there is no") {
				t.Errorf("what was written is not read: %v\n%s", err, again)
			}
		}
	})
}
