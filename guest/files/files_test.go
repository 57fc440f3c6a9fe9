package files_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"consort.dev/consort/fault"
	"consort.dev/consort/guest/files"
	"consort.dev/consort/test/account"
)

// guest runs commands as root here, where there is an account ana.
type guest struct {
	*testing.T
	dir, home string
	account   *account.Account
	stop      string // a verb that fails from now on
}

func newGuest(t *testing.T) *guest {
	t.Helper()
	a := account.New(t)
	g := &guest{T: t, dir: a.Dir, home: a.Home, account: a}
	g.must(os.WriteFile(filepath.Join(g.dir, "secret"), []byte("the host's"), 0o644))
	return g
}

func (g *guest) must(err error) {
	g.Helper()
	if err != nil {
		g.Fatal(err)
	}
}

func (g *guest) run(ctx context.Context, args []string, stdin []byte) (int, []byte, []byte, error) {
	if g.stop != "" && len(args) > 6 && args[6] == g.stop {
		return 0, nil, nil, fault.Unavailable.Errorf("the guest does not answer")
	}
	return g.account.Run(ctx, args, stdin)
}

func (g *guest) file(path string) files.File { return files.File{Run: g.run, User: "ana", Path: path} }

func (g *guest) send(path string, content []byte) error {
	part, err := g.file(path).Begin(g.Context())
	if err != nil {
		return err
	}
	err = part.Fill(g.Context(), bytes.NewReader(content))
	if err == nil {
		_, err = part.End(g.Context())
	}
	if err != nil {
		g.must(part.Drop(g.Context()))
	}
	return err
}

// left is every file in the home.
func (g *guest) left() []string {
	var all []string
	g.must(filepath.Walk(g.home, func(path string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() {
			all = append(all, strings.TrimPrefix(path, g.home+"/"))
		}
		return err
	}))
	return all
}

func TestFilesComeAndGoAsTheyAre(t *testing.T) {
	g := newGuest(t)
	for _, path := range []string{"plain", "with spaces and 'quotes'", "Übersicht \U0001F600", "a/b/c", "-rf", "$(touch x)", "*", ".hidden", `back\slash`, strings.Repeat("n", 255)} {
		for _, size := range []int{0, 1, files.Chunk, files.Chunk + 1} {
			path := path
			if size > 0 {
				path = fmt.Sprint("of ", size, "/", path)
			}
			content := bytes.Repeat([]byte("\x00ab\xff\n"), size/5+1)[:size]
			if err := g.send(path, content); err != nil {
				t.Fatalf("%q, %d bytes: %v", path, size, err)
			}
			at := filepath.Join(g.home, path)
			is, err := os.ReadFile(at)
			if err != nil || !bytes.Equal(is, content) {
				t.Fatalf("%q holds %d bytes, want %d: %v", path, len(is), size, err)
			}
			info, err := os.Stat(at)
			g.must(err)
			if s := info.Sys().(*syscall.Stat_t); s.Uid != account.ID || s.Gid != account.ID || info.Mode().Perm() != 0o600 {
				t.Errorf("%q is %d's and %v; want ana's alone", path, s.Uid, info.Mode())
			}
			var back bytes.Buffer
			n, err := g.file(path).Size(t.Context())
			if err == nil {
				_, err = g.file(path).Copy(t.Context(), &back, n)
			}
			if err != nil || !bytes.Equal(back.Bytes(), content) {
				t.Fatalf("%q comes back with %d bytes: %v", path, back.Len(), err)
			}
		}
	}
}

func TestNothingIsReachedOutsideTheHome(t *testing.T) {
	g := newGuest(t)
	g.must(os.Symlink(g.dir, filepath.Join(g.home, "up")))
	g.must(os.Symlink(filepath.Join(g.dir, "secret"), filepath.Join(g.home, "secret")))
	g.must(os.Symlink("/etc", filepath.Join(g.home, "etc")))
	g.must(syscall.Mkfifo(filepath.Join(g.home, "fifo"), 0o666))
	g.must(os.Mkdir(filepath.Join(g.home, "folder"), 0o777))
	g.must(os.WriteFile(filepath.Join(g.home, "root's"), []byte("x"), 0o600))
	for path, want := range map[string]fault.Kind{
		"../secret": fault.Denied, "up/secret": fault.Denied, "secret": fault.Denied, "etc/hostname": fault.Denied, "folder/../../secret": fault.Denied,
		"fifo": fault.Invalid, "folder": fault.Invalid, "root's": fault.Invalid, "absent": fault.NotFound,
	} {
		if n, err := g.file(path).Size(t.Context()); fault.KindOf(err) != want || err == nil {
			t.Errorf("size of %s = %d, %v; want %s", path, n, err, want)
		}
		var out bytes.Buffer
		if _, err := g.file(path).Copy(t.Context(), &out, 5); err == nil || out.Len() > 0 {
			t.Errorf("%s: %q came out, %v", path, out.String(), err)
		}
	}
	for path, want := range map[string]fault.Kind{
		"../new": fault.Denied, "up/new": fault.Denied, "etc/new": fault.Denied, "up/more/new": fault.Denied,
		"secret": fault.Exists, "fifo": fault.Exists, "folder": fault.Exists, "root's/new": fault.Unavailable,
	} {
		if err := g.send(path, []byte("new")); fault.KindOf(err) != want || err == nil {
			t.Errorf("send %s = %v; want %s", path, err, want)
		}
	}
	if b, err := os.ReadFile(filepath.Join(g.dir, "secret")); err != nil || string(b) != "the host's" {
		t.Errorf("the secret is %q, %v", b, err)
	}
	if list, err := os.ReadDir(g.dir); err != nil || len(list) != 4 {
		t.Errorf("beside the home there are %v, %v", list, err)
	}
}

func TestHalfAFileLeavesNothing(t *testing.T) {
	broken := errors.New("broken")
	for name, fill := range map[string]func(*guest, *files.Part) error{
		"the sender breaks off": func(g *guest, p *files.Part) error {
			return p.Fill(g.Context(), iotest.DataErrReader(&failing{bytes.NewReader(make([]byte, files.Chunk+7)), broken}))
		},
		"the guest loses its tongue": func(g *guest, p *files.Part) error {
			g.stop = "add"
			defer func() { g.stop = "" }()
			return p.Fill(g.Context(), strings.NewReader("half"))
		},
		"it is another file by then": func(g *guest, p *files.Part) error {
			g.must(p.Fill(g.Context(), strings.NewReader("whole")))
			left := g.left()
			g.must(os.WriteFile(filepath.Join(g.home, left[0]), []byte("other"), 0o600))
			_, err := p.End(g.Context())
			return err
		},
		"the name is taken meanwhile": func(g *guest, p *files.Part) error {
			g.must(p.Fill(g.Context(), strings.NewReader("whole")))
			g.must(os.MkdirAll(filepath.Join(g.home, "report"), 0o700))
			_, err := p.End(g.Context())
			return err
		},
	} {
		g := newGuest(t)
		part, err := g.file("report").Begin(t.Context())
		g.must(err)
		if left := g.left(); len(left) != 1 || left[0] == "report" {
			t.Errorf("%s: meanwhile there is %v; want one, by another name", name, left)
		}
		if err := fill(g, part); err == nil {
			t.Errorf("%s: it passes", name)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		g.must(part.Drop(ended))
		if left := g.left(); len(left) != 0 {
			t.Errorf("%s: %v is left", name, left)
		}
	}
}

// failing reads to the end of what there is, and then fails.
type failing struct {
	r   *bytes.Reader
	err error
}

func (f *failing) Read(p []byte) (int, error) {
	if n, err := f.r.Read(p); err == nil {
		return n, nil
	}
	return 0, f.err
}

func TestWhatAHostLeftBehindGoesWithTheNextFile(t *testing.T) {
	g := newGuest(t)
	_, err := g.file("one").Begin(t.Context())
	g.must(err)
	g.must(g.send("two", nil))
	if left := g.left(); len(left) != 2 {
		t.Errorf("%v; want the file and one that may still be on its way", left)
	}
	old := time.Now().Add(-2 * time.Hour)
	for _, f := range g.left() {
		g.must(os.Chtimes(filepath.Join(g.home, f), old, old))
	}
	g.must(g.send("three", nil))
	if left := g.left(); len(left) != 2 {
		t.Errorf("%v; want two files", left)
	}
}
