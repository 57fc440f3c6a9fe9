package image_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/image"
)

// smallest is a recipe that takes long enough to be interrupted.
var smallest = estate.Recipe{Suite: "bookworm", Packages: []string{"less"}, Size: estate.GiB, User: "user"}

func needsBuilder(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("it builds systems; run without -short")
	}
	if os.Geteuid() != 0 {
		t.Skip("building a system takes root")
	}
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		t.Skip("mmdebstrap is not installed")
	}
}

func TestAKilledBuildLeavesNothing(t *testing.T) {
	needsBuilder(t)
	dir := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(2, 2))
	for range 3 {
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), "CONSORT_TEST_BUILD="+dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Duration(1000+random.IntN(7000)) * time.Millisecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it was killed
		nobodyWorksIn(t, dir)
		s := open(t, dir)
		if left := drafts(dir); left != nil {
			t.Errorf("drafts are left: %v", left)
		}
		if all, err := s.List(); err != nil || len(all) != 0 {
			t.Errorf("list = %v, %v, want nothing", all, err)
		}
	}
}

func TestAStoppedBuildLeavesNothing(t *testing.T) {
	needsBuilder(t)
	s := open(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stop := image.Options{Report: func(w estate.Work) {
		if w.Percent > 3 {
			cancel()
		}
	}}
	_, err := image.Build(ctx, smallest, s, stop)
	if !errors.Is(err, context.Canceled) || !errors.Is(err, fault.Unavailable) {
		t.Errorf("got %v, want unavailable because it was canceled", err)
	}
	nobodyWorksIn(t, s.Dir())
	if left := drafts(s.Dir()); left != nil {
		t.Errorf("drafts are left: %v", left)
	}
}

func TestAFailedBuildSaysWhatToDo(t *testing.T) {
	needsBuilder(t)
	s := open(t, t.TempDir())
	r := smallest
	r.Packages = []string{"no-such-package-anywhere"}
	_, err := image.Build(t.Context(), r, s, image.Options{})
	for _, want := range []string{`phase "download and unpack packages"`, "no-such-package-anywhere", "correct the package's name"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to say %q", err, want)
		}
	}
	r.Suite = "potato"
	_, err = image.Build(t.Context(), r, s, image.Options{})
	if err == nil || !strings.Contains(err.Error(), `no archive of suite "potato"`) {
		t.Errorf("got %v, want it to name the suite", err)
	}
}

// nobodyWorksIn waits until no process mentions the directory.
func nobodyWorksIn(t *testing.T, dir string) {
	t.Helper()
	var who []string
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); <-time.After(50 * time.Millisecond) {
		who = nil
		all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, p := range all {
			if line, _ := os.ReadFile(p); strings.Contains(string(line), dir) {
				who = append(who, strings.ReplaceAll(string(line), "\x00", " "))
			}
		}
		if who == nil {
			break
		}
	}
	if who != nil {
		t.Errorf("still at work: %v", who)
	}
	if mounts, _ := os.ReadFile("/proc/self/mounts"); strings.Contains(string(mounts), dir) {
		t.Errorf("something is mounted in %s", dir)
	}
}

func buildOnce(dir string) {
	s, err := image.Open(dir)
	if err == nil {
		_, err = image.Build(context.Background(), smallest, s, image.Options{})
	}
	fmt.Println(err)
	os.Exit(0)
}
