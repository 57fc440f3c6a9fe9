package compose_test

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"consort.dev/consort/compose"
	"consort.dev/consort/estate"
	"consort.dev/consort/manifest"
)

var update = flag.Bool("update", false, "rewrite the goldens")

// world is an inventory by reference, and what is composed from it.
type world map[string]estate.Resource

// load reads the inventory, and the case over it.
func load(t *testing.T, file string) (w world, nobody bool) {
	t.Helper()
	w = world{}
	base, err := manifest.Load("testdata/inventory.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range base.Resources() {
		w[r.Header().Ref().String()] = r
	}
	if file == "" {
		return w, false
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	l := manifest.Loader{Stdin: bytes.NewReader(text), Known: func(kind estate.Kind, _ string) ([]string, error) {
		names := []string{"ana-lab"}
		for _, r := range w {
			if r.Header().Kind == kind {
				names = append(names, r.Header().Metadata.Name)
			}
		}
		return names, nil
	}}
	if strings.Contains(string(text), "apiVersion") {
		set, err := l.Load("-")
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, r := range set.Resources() {
			w[r.Header().Ref().String()] = r
		}
	}
	for line := range strings.Lines(string(text)) {
		if gone, ok := strings.CutPrefix(line, "# without: "); ok {
			for _, ref := range strings.Fields(gone) {
				delete(w, ref)
			}
		}
		nobody = nobody || strings.HasPrefix(line, "# desktop: none")
	}
	return w, nobody
}

func all[T estate.Resource](w world) []T {
	var out []T
	for _, key := range slices.Sorted(maps.Keys(w)) {
		if r, ok := w[key].(T); ok {
			out = append(out, r)
		}
	}
	return out
}

func (w world) inventory() compose.Inventory {
	return compose.Inventory{
		Hypervisors:  all[*estate.Hypervisor](w),
		Images:       all[*estate.Image](w),
		Applications: all[*estate.Application](w),
		Contexts:     all[*estate.Context](w),
		Networks:     all[*estate.Network](w),
		Volumes:      all[*estate.Volume](w),
		Machines:     all[*estate.Machine](w),
		Grants:       all[*estate.Grant](w),
		Groups:       all[*estate.Group](w),
		Presentations: []estate.PresentationOffer{
			{Name: "vnc", Protocol: "rfb", Browser: true, Keeps: true},
			{Name: "rdp", Protocol: "rdp", Guest: true},
		},
		Deliveries: []estate.DeliveryOffer{
			{Name: "layers", Agent: true, Needs: []estate.Capability{estate.CanHotplug, estate.CanGuest}},
		},
	}
}

func (w world) plan(nobody bool) (estate.Plan, []compose.Reason) {
	b := w["blueprint/default/office"].(*estate.Blueprint)
	if nobody {
		return compose.Plan(w.inventory(), b, nil)
	}
	return compose.Plan(w.inventory(), b, w["desktop/default/ana-office"].(*estate.Desktop))
}

// TestPlans composes every case and compares the plan, the reasons and what
// changed from the inventory's own plan with the golden.
func TestPlans(t *testing.T) {
	first, _ := load(t, "")
	base, reasons := first.plan(false)
	if len(reasons) > 0 {
		t.Fatalf("the inventory does not compose: %v", reasons)
	}
	files, err := filepath.Glob("testdata/cases/*.yaml")
	if err != nil || len(files) < 25 {
		t.Fatalf("%d cases, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			w, nobody := load(t, file)
			plan, reasons := w.plan(nobody)
			golden(t, strings.TrimSuffix(file, ".yaml")+".golden", describe(t, base, plan, reasons))
		})
	}
}

func describe(t *testing.T, base, plan estate.Plan, reasons []compose.Reason) []byte {
	t.Helper()
	var out bytes.Buffer
	for _, part := range []struct {
		title   string
		reasons []compose.Reason
	}{{"blocked", compose.Blocked(reasons)}, {"waiting", compose.Waiting(reasons)}, {"note", compose.Notes(reasons)}} {
		for _, r := range part.reasons {
			fmt.Fprintf(&out, "%s: %s\n", part.title, r)
		}
	}
	if plan.Image == "" {
		return out.Bytes()
	}
	for _, c := range compose.Diff(base, plan) {
		fmt.Fprintf(&out, "change: %s\n", c)
	}
	text, err := manifest.MarshalValue(plan)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&out, "plan:\n%s", text)
	return out.Bytes()
}

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
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s (-want +got):\n%s", file, d)
	}
}

// TestPlanLeavesItsArgumentsAlone composes twice and finds the inventory as it was.
func TestPlanLeavesItsArgumentsAlone(t *testing.T) {
	w, _ := load(t, "")
	before, _ := load(t, "")
	one, _ := w.plan(false)
	two, _ := w.plan(false)
	if d := cmp.Diff(one, two); d != "" {
		t.Errorf("two plans of one inventory differ:\n%s", d)
	}
	if d := cmp.Diff(before, w); d != "" {
		t.Errorf("planning changed the inventory:\n%s", d)
	}
}

// TestPresentationSwapTouchesNothingElse is the promise of three layers.
func TestPresentationSwapTouchesNothingElse(t *testing.T) {
	w, _ := load(t, "")
	was, _ := w.plan(false)
	w["blueprint/default/office"].(*estate.Blueprint).Spec.Presentation = "rdp"
	is, reasons := w.plan(false)
	if len(reasons) > 0 {
		t.Fatal(reasons)
	}
	if cs := compose.Diff(was, is); len(cs) != 1 || compose.Most(cs) != compose.Reconnect {
		t.Errorf("changes = %v", cs)
	}
	is.Presentation = was.Presentation
	if d := cmp.Diff(was, is); d != "" {
		t.Errorf("more than the presentation changed:\n%s", d)
	}
}

// TestHomeNamesAreNames cuts long ones without mixing up two persons.
func TestHomeNamesAreNames(t *testing.T) {
	long := strings.Repeat("a", 63)
	names := []string{
		compose.HomeVolume("ana", "personal"),
		compose.HomeVolume(long, "personal"),
		compose.HomeVolume(long, "corporate"),
		compose.HomeVolume(long[:62]+"b", "personal"),
	}
	for i, n := range names {
		if p := estate.NameProblem(n); p != "" {
			t.Error(p)
		}
		if slices.Index(names, n) != i {
			t.Errorf("%s names two homes", n)
		}
	}
	if names[0] != "home-ana-personal" {
		t.Errorf("home of ana = %s", names[0])
	}
}

// TestFirstDesktopComposes plans the example as it will be once its image and
// layers are made, by either presentation in the context that either can keep.
func TestFirstDesktopComposes(t *testing.T) {
	set, err := manifest.Load("../examples/first-desktop")
	if err != nil {
		t.Fatal(err)
	}
	w, _ := load(t, "")
	for key, r := range w {
		if k := r.Header().Kind; k != "Hypervisor" {
			delete(w, key)
		}
	}
	for _, r := range set.Resources() {
		w[r.Header().Ref().String()] = r
	}
	img := w["image/default/debian-12-desktop"].(*estate.Image)
	img.Status.Digest, img.Status.Guest = estate.Digest("sha256:"+strings.Repeat("1", 64)), img.Spec.Recipe.Guest
	in := w.inventory()
	in.Deliveries = nil
	for i, app := range in.Applications {
		app.Status.Layers = []estate.LayerBuild{{Version: app.Spec.Versions[0].Name, Image: img.Status.Digest, Digest: estate.Digest(fmt.Sprintf("sha256:%064d", i))}}
		in.Deliveries = append(in.Deliveries, estate.DeliveryOffer{Name: app.Spec.Delivery, Agent: true, Needs: []estate.Capability{estate.CanHotplug, estate.CanGuest}})
	}
	for _, h := range in.Hypervisors {
		h.Status.Capabilities = append(h.Status.Capabilities, estate.CapabilityReport{Name: estate.CanEncryptDisk, Has: true})
	}
	ana := w["desktop/default/ana-office"].(*estate.Desktop)
	seat := *ana
	seat.Spec.Pool = "personal"
	for _, c := range []struct {
		presentation, blueprint string
		desktop                 *estate.Desktop
		layers                  int
		disposable              bool
	}{
		{"vnc", "office", ana, 2, false},
		{"vnc", "personal", &seat, 1, true},
		{"rdp", "personal", &seat, 1, true},
	} {
		b := *w["blueprint/default/"+c.blueprint].(*estate.Blueprint)
		b.Spec.Presentation = c.presentation
		plan, reasons := compose.Plan(in, &b, c.desktop)
		if len(reasons) > 0 || len(plan.Layers) != c.layers || plan.Presentation.Name != c.presentation || plan.Disposable != c.disposable {
			t.Errorf("%s by %s: %d layers, disposable %v, reasons %v", c.blueprint, c.presentation, len(plan.Layers), plan.Disposable, reasons)
		}
	}
}
