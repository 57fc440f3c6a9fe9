package crossing

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"sync"
	"testing"

	"consort.dev/consort/api"
	"consort.dev/consort/audit"
	"consort.dev/consort/audit/chain"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/store"
)

// names are what files are called: those that may be, and those that may not.
var names = map[string]bool{
	"report.odt": true, "Größe \U0001F600.txt": true, "with spaces": true, "Downloads/deep/er": true, "$(touch x)": true,
	"../x": false, "/etc/passwd": false, "a/../../x": false, "": false,
}

const mostOfAFile = 100_000

// TestFilesCrossAsTheContextSays carries files both ways through gateway, agent
// and guest, under every policy, of every length and name. What is not allowed
// leaves nothing on the other side; all else arrives whole. The control, where
// all is allowed, shows that they would arrive.
func TestFilesCrossAsTheContextSays(t *testing.T) {
	t.Parallel() // others wait more than they do
	h := newHome(t)
	p := newPlane(t)
	p.employ(h)
	arrived := map[bool]int{}
	for _, rule := range []estate.Files{{In: true, Out: true, MaxBytes: 1 << 20}, {}, {In: true, MaxBytes: mostOfAFile}, {Out: true, MaxBytes: mostOfAFile}, {In: true, Out: true, MaxBytes: mostOfAFile}} {
		p.allowFiles(rule)
		for name, right := range names {
			for _, size := range []int{0, 1, 64 << 10, mostOfAFile, mostOfAFile + 1} {
				what := fmt.Sprintf("rule %+v, %q of %d bytes", rule, name, size)
				content := make([]byte, size)
				rand.Read(content)
				long := size > int(rule.MaxBytes)

				_, err := p.client.SendFile(t.Context(), "default", desk, name, int64(size), bytes.NewReader(content))
				p.refused(what+", in", err, right, rule.In, long, "files.in")
				has, e := h.holds()
				p.must(e)
				if err == nil {
					arrived[true]++
					if got, there := has[name]; !there || !bytes.Equal(got, content) || len(has) != 1 {
						t.Fatalf("%s: the home holds %d files, and %d bytes of it", what, len(has), len(got))
					}
				} else if len(has) != 0 {
					t.Fatalf("%s: refused (%v), and the home holds %v", what, err, maps.Keys(has))
				}
				p.must(h.clear())

				if right {
					p.must(h.put(name, content))
				}
				got, err := fetch(t.Context(), p.client, name)
				p.refused(what+", out", err, right, rule.Out, long, "files.out")
				if err == nil {
					arrived[false]++
				}
				if err == nil && !bytes.Equal(got, content) || err != nil && len(got) > 0 {
					t.Fatalf("%s: %d bytes came out, %v", what, len(got), err)
				}
				p.must(h.clear())
			}
		}
	}
	if arrived[true] < 50 || arrived[false] < 50 {
		t.Errorf("%d files arrived inside, %d outside; the control alone has 25 each", arrived[true], arrived[false])
	}
	p.log.tells(t, arrived)
}

// refused wants a refusal that names the rule, or none.
func (p *plane) refused(what string, err error, right, allowed, long bool, rule string) {
	p.Helper()
	kind, says := fault.Denied, rule
	switch {
	case !right:
		kind, says = fault.Invalid, ""
	case !allowed:
	case long:
		says = "files.maxBytes"
	default:
		p.must(err)
		return
	}
	if err == nil || fault.KindOf(err) != kind || !strings.Contains(err.Error(), says) {
		p.Fatalf("%s: %v; want %s that names %q", what, err, kind, says)
	}
}

func fetch(ctx context.Context, c *api.Client, name string) ([]byte, error) {
	r, _, err := c.FetchFile(ctx, "default", desk, name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// TestAFileThatBreaksOffLeavesNothing has the sender go away halfway.
func TestAFileThatBreaksOffLeavesNothing(t *testing.T) {
	h := newHome(t)
	p := newPlane(t)
	p.employ(h)
	p.allowFiles(estate.Files{In: true})
	half := io.MultiReader(bytes.NewReader(make([]byte, 600<<10)), broken{})
	if _, err := p.client.SendFile(t.Context(), "default", desk, "big", 2<<20, half); err == nil {
		t.Error("half a file passes")
	}
	p.until("nothing of it is left", func() bool {
		has, err := h.holds()
		return err == nil && len(has) == 0
	})
	p.must(h.put("taken", []byte("mine")))
	_, err := p.client.SendFile(t.Context(), "default", desk, "taken", 5, strings.NewReader("yours"))
	if has, e := h.holds(); fault.KindOf(err) != fault.Exists || e != nil || string(has["taken"]) != "mine" || len(has) != 1 {
		t.Errorf("over a file that is there: %v, and it holds %q (%d files)", err, has["taken"], len(has))
	}
}

// broken is a reader that fails.
type broken struct{}

// Read implements io.Reader.
func (broken) Read([]byte) (int, error) { return 0, errors.New("the sender went away") }

// journal remembers acts.
type journal struct {
	mu   sync.Mutex
	acts []audit.Act
}

// Record implements audit.Recorder.
func (j *journal) Record(_ context.Context, a audit.Act) (uint64, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.acts = append(j.acts, a)
	return uint64(len(j.acts)), nil
}

func (*journal) Read(context.Context, audit.Query, func(audit.Record) error) error   { return nil }
func (*journal) Follow(context.Context, audit.Query, func(audit.Record) error) error { return nil }
func (*journal) Verify(context.Context) (chain.Report, error)                        { return chain.Report{}, nil }
func (*journal) Seals(context.Context) ([]chain.Seal, error)                         { return nil, nil }

// tells wants each file that arrived in the log, with what it is, and each that
// was refused without a digest.
func (j *journal) tells(t *testing.T, arrived map[bool]int) {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	done := map[string]int{}
	for _, a := range j.acts {
		if !strings.HasPrefix(a.What, "file.") {
			continue
		}
		if whole := a.Outcome == audit.Done; whole != (a.With["digest"] != "") || whole && (a.With["bytes"] == "" || a.With["path"] == "" || a.Who == "") {
			t.Fatalf("the log says %+v", a)
		}
		if a.Outcome == audit.Done {
			done[a.What]++
		}
	}
	if done["file.in"] != arrived[true] || done["file.out"] != arrived[false] {
		t.Errorf("the log has %v, and %v arrived", done, arrived)
	}
}

// allowFiles sets what the desktop's context says of files.
func (p *plane) allowFiles(f estate.Files) {
	p.Helper()
	_, err := store.Modify(p.Context(), p.store, "default", "work", func(x *estate.Context) error { x.Spec.Files = f; return nil })
	p.must(err)
}
