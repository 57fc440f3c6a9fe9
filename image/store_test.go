package image_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/image"
)

// TestMain lets the test binary be the process that is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("CONSORT_TEST_PUT_FOREVER"); dir != "" {
		putForever(dir)
	}
	if dir := os.Getenv("CONSORT_TEST_BUILD"); dir != "" {
		buildOnce(dir)
	}
	os.Exit(m.Run())
}

func open(t *testing.T, dir string) *image.Store {
	t.Helper()
	s, err := image.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t *testing.T, s *image.Store, content string) image.Record {
	t.Helper()
	rec, err := s.Put(t.Context(), strings.NewReader(content), image.Record{Kind: image.KindLayer, Format: estate.Raw, Size: 512})
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

const hello = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"

func TestContentIsFoundUnderItsDigest(t *testing.T) {
	s := open(t, t.TempDir())
	rec := put(t, s, "hello")
	if rec.Digest != hello || rec.Stored != 5 {
		t.Errorf("got %s of %d bytes, want %s of 5", rec.Digest, rec.Stored, hello)
	}
	e, err := s.Get(hello)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(e.Path)
	if err != nil || string(got) != "hello" {
		t.Errorf("content = %q, %v, want hello", got, err)
	}
	info, err := os.Stat(e.Path)
	if err != nil || info.Mode().Perm() != 0o444 {
		t.Errorf("mode = %v, %v, want 0444", info.Mode(), err)
	}
	if diff := cmp.Diff(rec, e.Record); diff != "" {
		t.Errorf("record differs:\n%s", diff)
	}
	if all, err := s.List(); err != nil || cmp.Diff(all, []image.Record{rec}) != "" {
		t.Errorf("list = %v, %v, want the one record", all, err)
	}
}

func TestContentPutTwiceKeepsItsFirstRecord(t *testing.T) {
	s := open(t, t.TempDir())
	first := put(t, s, "hello")
	second, err := s.Put(t.Context(), strings.NewReader("hello"), image.Record{Kind: image.KindImage, Format: estate.QCOW2})
	if err != nil || cmp.Diff(first, second) != "" {
		t.Errorf("got %+v, %v, want %+v", second, err, first)
	}
}

func TestAbsentContentIsNotFoundAndDeletedTwice(t *testing.T) {
	s := open(t, t.TempDir())
	if _, err := s.Get(hello); !errors.Is(err, fault.NotFound) {
		t.Errorf("Get = %v, want not found", err)
	}
	put(t, s, "hello")
	for range 2 {
		if err := s.Delete(hello); err != nil {
			t.Errorf("Delete = %v", err)
		}
	}
	if files, _ := filepath.Glob(filepath.Join(s.Dir(), "2cf2*")); files != nil {
		t.Errorf("after Delete there are %v", files)
	}
}

func TestADigestThatIsNoneReachesNoFile(t *testing.T) {
	s := open(t, t.TempDir())
	for _, d := range []estate.Digest{"", "sha256:", "../../etc/passwd", "sha256:../../etc/passwd"} {
		if _, err := s.Get(d); !errors.Is(err, fault.Invalid) {
			t.Errorf("Get(%q) = %v, want invalid", d, err)
		}
		if err := s.Delete(d); !errors.Is(err, fault.Invalid) {
			t.Errorf("Delete(%q) = %v, want invalid", d, err)
		}
	}
}

func TestDamagedContentIsFound(t *testing.T) {
	s := open(t, t.TempDir())
	put(t, s, "hello")
	if err := s.Verify(t.Context(), hello); err != nil {
		t.Fatalf("Verify of sound content = %v", err)
	}
	e, _ := s.Get(hello)
	if err := os.Chmod(e.Path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(e.Path, []byte("jello"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(t.Context(), hello); !errors.Is(err, fault.Stuck) {
		t.Errorf("Verify of damaged content = %v, want stuck", err)
	}
}

func TestAFailedPutLeavesNothing(t *testing.T) {
	s := open(t, t.TempDir())
	broken := io.MultiReader(strings.NewReader("hello"), errReader{})
	if _, err := s.Put(t.Context(), broken, image.Record{}); err == nil {
		t.Error("Put of a broken reader succeeded")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Put(ctx, strings.NewReader("hello"), image.Record{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Put after the end = %v, want canceled", err)
	}
	if left := drafts(s.Dir()); left != nil {
		t.Errorf("drafts are left: %v", left)
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errors.New("cable pulled") }

func TestADraftOfALivingProcessIsNotSwept(t *testing.T) {
	s := open(t, t.TempDir())
	d, err := s.Draft()
	if err != nil {
		t.Fatal(err)
	}
	open(t, s.Dir())
	if _, err := os.Stat(d.Dir); err != nil {
		t.Errorf("a second Open removed the draft: %v", err)
	}
	d.Discard()
	d.Discard()
	if left := drafts(s.Dir()); left != nil {
		t.Errorf("Discard left %v", left)
	}
}

func TestManyPutTheSameAtOnce(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	for range 8 {
		s := open(t, dir)
		wg.Go(func() {
			for range 20 {
				if _, err := s.Put(t.Context(), strings.NewReader("hello"), image.Record{Kind: image.KindLayer}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if all, err := open(t, dir).List(); err != nil || len(all) != 1 {
		t.Errorf("list = %v, %v, want one", all, err)
	}
}

func TestAKilledProcessLeavesNothingHalfMade(t *testing.T) {
	dir := t.TempDir()
	random := rand.New(rand.NewPCG(1, 1))
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	rounds := 30
	if testing.Short() {
		rounds = 5
	}
	for round := range rounds {
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), "CONSORT_TEST_PUT_FOREVER="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for range 1 + random.IntN(4) {
			lines.Scan()
		}
		<-time.After(time.Duration(random.IntN(3000)) * time.Microsecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it was killed
		checkWhole(t, dir, round)
	}
}

// checkWhole opens the store and compares every file with its record.
func checkWhole(t *testing.T, dir string, round int) {
	t.Helper()
	s := open(t, dir)
	if left := drafts(dir); left != nil {
		t.Errorf("round %d: drafts are left: %v", round, left)
	}
	all, err := s.List()
	if err != nil {
		t.Fatalf("round %d: %v", round, err)
	}
	known := map[string]bool{"lock": true, "tmp": true, "built": true}
	for _, rec := range all {
		if err := s.Verify(t.Context(), rec.Digest); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		known[rec.Digest.Hex()], known[rec.Digest.Hex()+".json"] = true, true
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !known[f.Name()] {
			t.Errorf("round %d: %s has no record", round, f.Name())
		}
	}
}

func drafts(dir string) []string {
	left, _ := filepath.Glob(filepath.Join(dir, "tmp", "*"))
	return left
}

func putForever(dir string) {
	s, err := image.Open(dir)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for i := 0; ; i++ {
		content := strings.Repeat(fmt.Sprint(os.Getpid(), i, " "), 20000)
		if _, err := s.Put(context.Background(), strings.NewReader(content), image.Record{Kind: image.KindLayer, Format: estate.Raw}); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(i)
	}
}
