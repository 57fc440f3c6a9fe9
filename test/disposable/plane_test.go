package disposable

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/audit"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// To kill the plane at each thing it does in a destruction, and no earlier or
// later, the test builds a plane of its own which ends itself before or after a
// write to the store or to the audit log. Which writes there are is seen at a
// destruction that nobody disturbs; the product knows nothing of it.

// mortal is where the test and its plane say to each other which step is next.
type mortal struct {
	dir   string
	steps []string // of a destruction, each as the plane called it
}

// mortalPlane has every program that the test builds from here on be able to end
// itself. One that was started without the order is like the product.
func mortalPlane(t *testing.T) *mortal {
	t.Helper()
	m := &mortal{dir: t.TempDir()}
	code, err := os.ReadFile("testdata/passes.go")
	if err != nil {
		t.Fatal(err)
	}
	o := overlay{t: t, dir: t.TempDir(), replace: map[string]string{}}
	for folder, file := range map[string]string{"plane/store/etcd": "etcd.go", "audit": "log.go"} {
		o.add(folder+"/passes.go", strings.Replace(string(code), "package passes", "package "+filepath.Base(folder), 1))
		o.change(folder+"/"+file, func(text string) string {
			for old, by := range writes[folder] {
				text = instead(t, text, old, by)
			}
			return text
		})
	}
	t.Setenv("GOFLAGS", strings.TrimSpace(os.Getenv("GOFLAGS")+" -overlay="+o.write()))
	t.Setenv("CONSORT_DISPOSABLE_STEPS", m.dir)
	return m
}

// writes is where the plane writes, and what the test puts there.
var writes = map[string]map[string]string{
	"plane/store/etcd": {
		"	r, err := k.client.Txn(ctx).If(cmps...).Then(ops...).Commit()\n": `	var all []string
	for _, w := range t.Then {
		verb := "put "
		if w.Delete {
			verb = "delete "
		}
		all = append(all, verb+w.Key)
	}
	passes("before", all...)
	r, err := k.client.Txn(ctx).If(cmps...).Then(ops...).Commit()
	if err == nil && r.Succeeded {
		passes("after", all...)
	}
`,
	},
	"audit": {
		"	first, err := l.w.Append(data...)\n": `	for _, d := range data {
		passes("before", recorded(d))
	}
	first, err := l.w.Append(data...)
`,
		"	for i, e := range write {\n": `	for _, d := range data {
		if err == nil {
			passes("after", recorded(d))
		}
	}
	for i, e := range write {
`,
	},
}

// order has the plane write down what it does to the session's desktop, and end
// itself at the step, if that is not "".
func (m *mortal) order(p *personal, s *estate.Session, step string) {
	p.Helper()
	lines := strings.Join([]string{step, s.Metadata.Name, s.Spec.Desktop, s.Status.Machine}, "\n")
	if err := os.Remove(m.file("passed")); err != nil && !errors.Is(err, os.ErrNotExist) {
		p.Fatal(err)
	}
	half := m.file("half")
	if err := os.WriteFile(half, []byte(lines), 0o600); err != nil {
		p.Fatal(err)
	}
	if err := os.Rename(half, m.file("order")); err != nil {
		p.Fatal(err)
	}
}

func (m *mortal) file(name string) string { return filepath.Join(m.dir, name) }

// passed returns the steps since the order.
func (m *mortal) passed() (steps []string) {
	b, err := os.ReadFile(m.file("passed"))
	if err != nil {
		return nil
	}
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}

// struck reports whether the plane ended itself as ordered.
func (m *mortal) struck() bool {
	_, err := os.Stat(m.file("order"))
	return errors.Is(err, os.ErrNotExist)
}

// learn keeps the steps of the session's destruction, which was ordered and is
// disturbed by nobody.
func (m *mortal) learn(p *personal, s *estate.Session) {
	p.Helper()
	p.until("the destruction has come to its end", func() bool { return m.whole(p, s) })
	m.steps = m.passed()
	for _, must := range []string{"before delete /consort/", "after delete /consort/", "before record machine.destroy begun", "after " + outcome} {
		if !slices.ContainsFunc(m.steps, func(s string) bool { return strings.HasPrefix(s, must) }) {
			p.Fatalf("no step of the destruction is %q: the plane's writes have changed, and so must the test:\n%s", must, strings.Join(m.steps, "\n"))
		}
	}
	p.Logf("a destruction has the plane write %d times, and these are its steps:\n%s", len(m.steps)/2, strings.Join(m.steps, "\n"))
	if err := os.Remove(m.file("order")); err != nil {
		p.Fatal(err)
	}
}

// interrupted throws desktops away while the plane ends itself, before or after
// all of its writes one by one, or some that CONSORT_SEED chooses.
func (m *mortal) interrupted(p *personal) {
	p.Helper()
	n, seed := number("CONSORT_KILLS", 2), uint64(number("CONSORT_SEED", int(time.Now().UnixNano()%1e6)))
	came := 0
	for _, step := range m.some(rand.New(rand.NewPCG(seed, 0)), n) {
		began := time.Now()
		if m.dies(p, step) {
			came++
		}
		p.Logf("the plane ended %s, after %v: nothing is left", step, time.Since(began).Round(time.Millisecond))
	}
	p.Logf("seed %d: the plane ended itself at %d of %d steps; the others did not come, and it was killed at the end", seed, came, min(n, len(m.steps)))
	if came == 0 {
		p.Error("the plane never ended itself")
	}
}

// some returns n of the steps by chance, or all of them where n is more.
func (m *mortal) some(random *rand.Rand, n int) []string {
	all := slices.Clone(m.steps)
	if n < len(all) {
		random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		all = all[:n]
	}
	return all
}

// dies throws a desktop away with a plane that ends itself at the step, and starts
// the plane again. It reports whether the step came: how often the plane writes
// an object depends on what came together.
func (m *mortal) dies(p *personal, step string) bool {
	p.Helper()
	s, machine, canaries, word := p.marked()
	before := len(p.destructions(machine)) // of earlier ones of the name
	m.order(p, s, step)
	_, unheard := p.Consort("reset", s.Spec.Desktop, "--yes")
	p.until("the plane ended itself "+step+", or the one before is gone", func() bool { return m.struck() || m.whole(p, s) })
	struck := m.struck()
	if unheard != nil && !struck {
		p.Fatal(unheard)
	}
	p.Plane().Kill() // it has ended, or the step did not come
	os.Remove(m.file("order"))
	p.nothing("the plane ended "+step, word, canaries)
	p.Plane().Begin()
	p.until("the one before is gone, though the plane ended "+step, func() bool {
		if unheard != nil { // as a person does who had no answer
			p.Consort("reset", s.Spec.Desktop, "--yes")
		}
		return p.over(s)
	})
	if err := Gone(estate.MachineID(machine.Metadata.UID), time.Second); err != nil {
		p.Errorf("the plane ended %s: %v", step, err)
	}
	p.nothing("the plane back that ended "+step, word, canaries)
	if rs := p.destructions(machine)[before:]; !destroyedOnce(rs, step) {
		p.Errorf("the plane ended %s, and the audit log tells of the destruction: %+v", step, rs)
	}
	return struck
}

// over reports whether nothing is left of the session's desktop in the store.
func (p *personal) over(s *estate.Session) bool {
	_, machine := api.Get[estate.Machine](p.Context(), p.Client, "default", s.Status.Machine)
	_, desktop := api.Get[estate.Desktop](p.Context(), p.Client, "default", s.Spec.Desktop)
	return errors.Is(machine, fault.NotFound) && errors.Is(desktop, fault.NotFound)
}

// whole reports whether the destruction that was ordered has come to its end.
func (m *mortal) whole(p *personal, s *estate.Session) bool {
	return p.over(s) && slices.Contains(m.passed(), "after "+outcome+", time 1")
}

// outcome is the last record of a destruction.
const outcome = "record machine.destroy done"

// destructions returns what the audit log tells of destructions of machines of
// that name.
func (p *personal) destructions(m *estate.Machine) (all []audit.Record) {
	p.Helper()
	for line := range strings.Lines(p.Must("audit", "export", "--what", "machine.destroy", "--on", m.Ref().String())) {
		var r audit.Record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			p.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

// destroyedOnce reports whether the records tell of one destruction, of one key.
// Each time it was begun it ended, but for the one that the step cut short. Where
// that was between the machine's last write and its outcome, nobody can write this
// any more, and the beginning stands for it.
func destroyedOnce(rs []audit.Record, step string) bool {
	outcomes, keys := map[audit.Outcome]int{}, map[string]bool{}
	for _, r := range rs {
		outcomes[r.Outcome]++
		keys[r.With["key"]] = true
	}
	unwritten := strings.HasPrefix(step, "before "+outcome) || strings.HasPrefix(step, "after delete ") && strings.Contains(step, "/machines/")
	done, failed := outcomes[audit.Done], outcomes[audit.Failed]
	cut := outcomes[audit.Begun] - done - failed
	told := done == 1 || unwritten && done == 0 && cut == 1
	return told && (cut == 0 || cut == 1) && len(keys) == 1 && !keys[""]
}

// TestARecordTooManyOrTooFewIsFound is the control of what is read in the log.
func TestARecordTooManyOrTooFewIsFound(t *testing.T) {
	const elsewhere, between = "after put /consort/objects/machines/default, time 1", "after delete /consort/objects/machines/default, time 1"
	for _, c := range []struct {
		log, step string // outcomes and keys, as "begun:k"
		want      bool
	}{
		{"begun:k done:k", elsewhere, true},
		{"begun:k begun:k done:k", elsewhere, true}, // cut short, and begun again
		{"begun:k failed:k begun:k done:k", elsewhere, true},
		{"begun:k", between, true},
		{"begun:k", elsewhere, false},
		{"", between, false},
		{"done:k", elsewhere, false},
		{"begun:k done:k begun:k done:k", elsewhere, false},
		{"begun:k begun:k begun:k done:k", elsewhere, false},
		{"begun:k done:other", elsewhere, false},
		{"begun: done:", elsewhere, false},
	} {
		var rs []audit.Record
		for f := range strings.FieldsSeq(c.log) {
			how, key, _ := strings.Cut(f, ":")
			rs = append(rs, audit.Record{Act: audit.Act{Outcome: audit.Outcome(how), With: map[string]string{"key": key}}})
		}
		if got := destroyedOnce(rs, c.step); got != c.want {
			t.Errorf("%q with the plane ended %s: told of once %v, want %v", c.log, c.step, got, c.want)
		}
	}
}
