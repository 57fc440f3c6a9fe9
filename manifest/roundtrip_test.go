package manifest_test

import (
	"bytes"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"consort.dev/consort/estate"
	"consort.dev/consort/manifest"
)

// TestWhatIsWrittenIsReadBack draws objects of every kind with every field
// filled at random, keeps those that break no rule, and reads back what
// Marshal wrote.
func TestWhatIsWrittenIsReadBack(t *testing.T) {
	for _, kind := range estate.Kinds() {
		t.Run(string(kind.Kind), func(t *testing.T) {
			tried := 0
			rapid.Check(t, func(t *rapid.T) {
				r := valid(kind)
				mutate(t, r, kind)
				if problems := estate.Check(r); len(problems) > 0 {
					t.Skip("breaks a rule: ", problems[0])
				}
				tried++
				text, err := manifest.Marshal(r)
				if err != nil {
					t.Fatal(err)
				}
				l := manifest.Loader{Stdin: bytes.NewReader(text), Known: known(r)}
				set, err := l.Load("-")
				if err != nil {
					t.Fatalf("%v\n%s", err, text)
				}
				got := set.Objects[0].Resource
				same := cmp.Options{cmpopts.EquateEmpty(), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })}
				if d := cmp.Diff(r, got, same); d != "" {
					t.Fatalf("read back (-wrote +read):\n%s\n%s", d, text)
				}
			})
			if tried < 20 {
				t.Errorf("only %d objects broke no rule", tried)
			}
		})
	}
}

// known answers that whatever the object links to exists.
func known(r estate.Resource) func(estate.Kind, string) ([]string, error) {
	names := []string{r.Header().Metadata.Project}
	for _, l := range r.Links() {
		names = append(names, l.To.Name)
	}
	return func(estate.Kind, string) ([]string, error) { return names, nil }
}

// valid is an object of the kind that breaks no rule.
func valid(k estate.KindInfo) estate.Resource {
	project := "lab"
	if k.Global {
		project = ""
	}
	r := k.NewNamed(project, "one")
	switch r := r.(type) {
	case *estate.Hypervisor:
		r.Spec.Provider = "some"
	case *estate.Context:
		r.Spec.Colour = "#123456"
	case *estate.Network:
		r.Spec.Subnet = "10.1.0.0/24"
	case *estate.Image:
		r.Spec.Recipe = &estate.Recipe{Suite: "bookworm"}
	case *estate.Application:
		r.Spec = estate.ApplicationSpec{Title: "t", Delivery: "d", Command: []string{"c"}, Versions: []estate.ApplicationVersion{{Name: "1", Packages: []string{"ab"}}}}
	case *estate.ServiceLevel:
		r.Spec.Application, r.Spec.Level = "a", estate.Level{Response: &estate.Response{}, Target: 990_000}
	case *estate.Blueprint:
		r.Spec = estate.BlueprintSpec{Image: "i", Presentation: "p", Context: "c"}
	case *estate.Pool:
		r.Spec = estate.PoolSpec{Blueprint: "b", Maximum: 5}
	case *estate.Service:
		r.Spec = estate.ServiceSpec{Image: "i", Applications: []estate.ApplicationChoice{{Name: "a"}}, Context: "c", Port: 80, Front: estate.FrontSpec{Port: 8080}, Scale: estate.Scale{Least: 1, Most: 2}}
	case *estate.Decision:
		r.Spec = estate.DecisionSpec{On: estate.Ref{Kind: "Service", Project: "lab", Name: "s"}, Act: "out", Mode: estate.Auto, Say: "more", Objective: "fast", Evidence: []estate.Fact{}, Alternatives: []estate.Alternative{}}
	case *estate.Volume:
		r.Spec.Size = estate.GiB
	case *estate.Desktop:
		r.Spec = estate.DesktopSpec{Blueprint: "b", Person: "p"}
	case *estate.Machine:
		r.Spec = estate.MachineSpec{Power: estate.On, Hardware: estate.Hardware{CPUs: 1, Memory: estate.GiB, Disks: []estate.Disk{{Name: "root", Volume: "v"}}}}
	case *estate.Session:
		r.Spec = estate.SessionSpec{Desktop: "d", Person: "p"}
	case *estate.Grant:
		r.Spec = estate.GrantSpec{To: estate.Grantee{Person: "p"}, Of: estate.Granted{Kind: "Project"}, Role: estate.Use}
	case *estate.Operation:
		r.Spec.Verb = "move"
	case *estate.Trial:
		r.Spec = estate.TrialSpec{Run: "r", Hypervisor: "h", Workload: "w", Figures: []estate.Figure{{Name: "iops", Better: estate.Higher, Samples: []float64{1.5}}}}
	}
	return r
}

// mutate fills the status and the metadata anew, and some fields of the spec.
func mutate(t *rapid.T, r estate.Resource, k estate.KindInfo) {
	v := reflect.ValueOf(r).Elem()
	fill(t, v.FieldByName("Status"), "")
	h := r.Header()
	h.Metadata.Labels = map[string]string{}
	for range rapid.IntRange(0, 2).Draw(t, "labels") {
		h.Metadata.Labels["l"+word(t)] = word(t)
	}
	h.Metadata.Created, h.Metadata.Version = moment(t), rapid.Int64().Draw(t, "version")
	spec := v.FieldByName("Spec")
	for i := range spec.NumField() {
		old := reflect.New(spec.Field(i).Type()).Elem()
		old.Set(spec.Field(i))
		fill(t, spec.Field(i), string(spec.Type().Field(i).Tag))
		if len(estate.Check(r)) > 0 {
			spec.Field(i).Set(old)
		}
	}
}

func moment(t *rapid.T) time.Time {
	return time.Unix(rapid.Int64Range(0, 1<<33).Draw(t, "seconds"), rapid.Int64Range(0, 999999999).Draw(t, "ns")).UTC()
}

func word(t *rapid.T) string {
	if rapid.Bool().Draw(t, "tricky") {
		return rapid.SampledFrom(strings.Split("on|off|yes|null|~|0644|7.40|1e3|# x|a: b|- a|a\nb\n| lead|trail |\n|a\n\n|é|*x|&x|!t|{a|[b|%|@|`|'|\"|\\|=|<<|2024-01-01|0x1f|1_000|.inf|:|-|?|a\tb|\ta\nb|a \nb|a\r\nb|0o7|12:30:45|a #b|\u2028|\u0085", "|")).Draw(t, "word")
	}
	return rapid.StringN(0, 12, 60).Draw(t, "text")
}

// fill sets v to something at random.
func fill(t *rapid.T, v reflect.Value, tag string) {
	switch {
	case v.Type() == reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(moment(t)))
		return
	case v.Type() == reflect.TypeFor[netip.Addr]():
		v.Set(reflect.ValueOf(netip.AddrFrom4([4]byte{10, 0, 0, byte(rapid.IntRange(0, 255).Draw(t, "addr"))})))
		return
	case v.Type() == reflect.TypeFor[estate.Bytes]():
		v.SetInt(rapid.Int64Range(0, 1<<50).Draw(t, "bytes"))
		return
	}
	enum := reflect.StructTag(tag).Get("enum")
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i), string(v.Type().Field(i).Tag))
		}
	case reflect.Pointer:
		v.SetZero()
		if rapid.Bool().Draw(t, "there") {
			v.Set(reflect.New(v.Type().Elem()))
			fill(t, v.Elem(), "")
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), rapid.IntRange(0, 2).Draw(t, "items"), 2))
		for i := range v.Len() {
			fill(t, v.Index(i), "")
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf(word(t)), reflect.ValueOf(word(t)))
	case reflect.String:
		switch {
		case enum != "":
			v.SetString(rapid.SampledFrom(strings.Split(enum, ",")).Draw(t, "enum"))
		default:
			v.SetString(word(t))
		}
	case reflect.Bool:
		v.SetBool(rapid.Bool().Draw(t, "bool"))
	case reflect.Float64:
		v.SetFloat(rapid.Float64().Draw(t, "float"))
	default:
		v.SetInt(rapid.Int64Range(-1, 1<<31).Draw(t, "int"))
	}
}
