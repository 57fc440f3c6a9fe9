package crossing

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/estate"
)

// hands are how a person carries files.
type hands interface {
	send(name string, content []byte) carried // into Downloads
	fetch(path string) carried
}

// carried is how a file fared.
type carried struct {
	Said  string // to the person
	Saved []byte // on their side; nil where there is no file
	Body  []byte // the gateway's refusal, where it is known
}

// TestFilesOfPeopleCrossAsTheContextSays sends and fetches files on the portal's
// page in Chromium and by the command, under every policy. What is not allowed
// leaves nothing on the other side, and the person is told the rule; all else
// arrives whole. The control, where all is allowed, comes first.
func TestFilesOfPeopleCrossAsTheContextSays(t *testing.T) {
	t.Parallel() // others wait more than they do
	for name, open := range map[string]func(*plane) hands{
		"Chromium": func(p *plane) hands {
			p.allow(estate.Clipboard{}, &desktop{side: 256})
			b := newBrowser(p)
			b.show("Files")
			return b
		},
		"consort": newCommand,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			needs(t) // not with -short
			h := newHome(t)
			p := newPlane(t)
			p.employ(h)
			by := open(p)
			p.carryAll(by, h)
			if c, is := by.(command); is {
				p.carryLarge(c, h)
			}
		})
	}
}

func (p *plane) carryAll(by hands, h *home) {
	p.Helper()
	began, tried, arrived := time.Now(), 0, map[bool]int{}
	for _, rule := range []estate.Files{{In: true, Out: true, MaxBytes: 4 << 20}, {}, {In: true, MaxBytes: mostOfAFile}, {Out: true, MaxBytes: mostOfAFile}, {In: true, Out: true, MaxBytes: mostOfAFile}} {
		p.allowFiles(rule)
		for name, size := range map[string]int{
			"nothing in it": 0, "one": 1, "Größe \U0001F600.txt": 64 << 10, "$(touch x)": mostOfAFile, "report.odt": mostOfAFile + 1, "big": 3 << 20,
		} {
			content := make([]byte, size)
			rand.Read(content)
			for _, in := range []bool{true, false} {
				tried++
				if p.carry(by, h, rule, name, content, in) {
					arrived[in]++
				}
				p.must(h.clear())
			}
		}
	}
	for _, path := range []string{"../x", "/etc/passwd"} {
		if c := by.fetch(path); c.Said == "" || c.Saved != nil {
			p.Errorf("%s comes out: %d bytes, and the person is told %q", path, len(c.Saved), c.Said)
		}
	}
	p.log.tells(p.T, arrived)
	p.Logf("%d files, %d arrived inside, %d outside, in %s", tried, arrived[true], arrived[false], time.Since(began).Round(time.Second))
}

// carryLarge carries files that are many of the pieces that they go in, where the
// context names no length, and where it names one that is just too short.
func (p *plane) carryLarge(by command, h *home) {
	p.Helper()
	began := time.Now()
	for _, size := range []estate.Bytes{8 * estate.MiB, 33*estate.MiB + 1} {
		content := make([]byte, size)
		rand.Read(content)
		for _, rule := range []estate.Files{{In: true, Out: true}, {In: true, Out: true, MaxBytes: size - 1}} {
			p.allowFiles(rule)
			for _, in := range []bool{true, false} {
				p.carry(by, h, rule, "large", content, in)
				p.must(h.clear())
			}
		}
	}
	p.Logf("files of 8 and 33 MiB in %s", time.Since(began).Round(10*time.Millisecond))
}

// carry sends a file or fetches it, looks whether it fared as the rule says, and
// returns whether it was to arrive.
func (p *plane) carry(by hands, h *home, rule estate.Files, name string, content []byte, in bool) bool {
	p.Helper()
	what := fmt.Sprintf("rule %+v, %q of %d bytes, in %v", rule, name, len(content), in)
	var c carried
	allowed, denies, arrived := rule.Out, "files.out", []byte(nil)
	if in {
		allowed, denies = rule.In, "files.in"
		c = by.send(name, content)
		has, err := h.holds()
		p.must(err)
		for at, came := range has {
			if at != "Downloads/"+name {
				p.Errorf("%s: %s is there", what, at)
			}
			arrived = came
		}
	} else {
		path := "Documents/" + name
		p.must(h.put(path, content))
		c = by.fetch(path)
		arrived = c.Saved
	}
	if allowed && len(content) > int(cmp.Or(rule.MaxBytes, estate.FilesBytes)) {
		allowed, denies = false, "files.maxBytes"
	}
	switch {
	case allowed && (arrived == nil || !bytes.Equal(arrived, content) || !strings.Contains(c.Said, name)):
		p.Errorf("%s: %d bytes arrive, and the person is told %q", what, len(arrived), c.Said)
	case !allowed && (arrived != nil || !strings.Contains(c.Said, denies)):
		p.Errorf("%s: %d bytes arrive that may not, and the person is told %q, which names no %s", what, len(arrived), c.Said, denies)
	case !allowed && len(content) > 64 && bytes.Contains(c.Body, content[:32]):
		p.Errorf("%s: the refusal has some of it", what)
	}
	return allowed
}

// send implements hands.
func (b *browser) send(name string, content []byte) (c carried) {
	b.Helper()
	b.do(order{Do: "send", Name: name, Content: content}, &c)
	return c
}

// fetch implements hands.
func (b *browser) fetch(path string) (c carried) {
	b.Helper()
	b.do(order{Do: "fetch", Path: path}, &c)
	return c
}

// command is the program itself.
type command struct {
	*plane
	program string
}

func newCommand(p *plane) hands {
	p.Helper()
	c := command{p, filepath.Join(p.TempDir(), "consort")}
	if out, err := exec.Command("go", "build", "-o", c.program, "../../cmd/consort").CombinedOutput(); err != nil {
		p.Fatalf("%v\n%s", err, out)
	}
	return c
}

// cp copies, in a folder of its own.
func (c command) cp(dir string, args ...string) carried {
	c.Helper()
	ctx, cancel := context.WithTimeout(c.Context(), soon)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.program, append([]string{"cp", "--server", c.trust.URL, "--"}, args...)...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "HOME="+dir)
	said, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		c.Fatalf("consort cp %q has not ended in %s: %v\n%s", args, soon, err, said)
	}
	return carried{Said: string(said)}
}

// send implements hands.
func (c command) send(name string, content []byte) carried {
	c.Helper()
	dir := c.TempDir()
	c.must(os.WriteFile(filepath.Join(dir, name), content, 0o600))
	return c.cp(dir, name, desk+":Downloads/")
}

// fetch implements hands. Whatever the folder has in the end came out.
func (c command) fetch(path string) carried {
	c.Helper()
	dir := c.TempDir()
	done := c.cp(dir, desk+":"+path, ".")
	all, err := os.ReadDir(dir)
	c.must(err)
	for _, e := range all {
		done.Saved, err = os.ReadFile(filepath.Join(dir, e.Name()))
		c.must(err)
	}
	return done
}
