package nested

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// sources is all that a host is made from, besides Debian's packages.
//
//go:embed image porter
var sources embed.FS

// recipe names what the sources make.
func recipe() (string, error) {
	h := sha256.New()
	err := fs.WalkDir(sources, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := sources.ReadFile(name)
		fmt.Fprintf(h, "%s %d\n%s", name, len(data), data)
		return err
	})
	return hex.EncodeToString(h.Sum(nil))[:16], err
}

// built returns the folder with the disk and the kernels of nested hosts, which
// it makes when the cache does not have it: that takes two minutes and a
// network. Of processes that need it at once, one makes it.
func built(ctx context.Context, cache string) (string, error) {
	key, err := recipe()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "nested", key)
	unlock, err := hold(dir + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	tmp := dir + ".new"
	if err := os.RemoveAll(tmp); err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	if err := build(ctx, tmp); err != nil {
		return "", fmt.Errorf("build the image of nested hosts: %w", err)
	}
	if err := os.Rename(tmp, dir); err != nil {
		return "", err
	}
	return dir, removeOthers(dir)
}

// removeOthers removes what was made from sources as they are no more. Hosts
// that still run on it keep their files.
func removeOthers(dir string) error {
	all, err := filepath.Glob(filepath.Join(filepath.Dir(dir), "*"))
	for _, other := range all {
		if !strings.HasPrefix(other, dir) {
			err = errors.Join(err, os.RemoveAll(other))
		}
	}
	return err
}

// hold waits until no other process holds the file, which goes with this one.
func hold(path string) (release func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

func build(ctx context.Context, dir string) error {
	scripts := filepath.Join(dir, "from")
	if err := os.CopyFS(scripts, sources); err != nil {
		return err
	}
	defer os.RemoveAll(scripts)
	if err := Program(ctx, "consort.dev/consort/test/nested/porter", filepath.Join(dir, "porter")); err != nil {
		return err
	}
	archives, err := archives(ctx)
	if err != nil {
		return err
	}
	// In namespaces of its own nothing it mounts is seen outside, and nothing it
	// starts outlives it.
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--",
		"bash", filepath.Join(scripts, "image", "build.sh"), dir)
	cmd.Stdin = strings.NewReader(archives)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return run(cmd)
}

// Program builds one of our programs for a nested host, which has no C library
// of ours.
func Program(ctx context.Context, pkg, to string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", to, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	return run(cmd)
}

// archives lists those of Debian 12 that this machine uses itself.
func archives(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Identifier: Packages").Output()
	if err != nil {
		return "", fmt.Errorf("ask apt for its archives: %w", err)
	}
	var list strings.Builder
	seen := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) == 3 && f[2] == "main" && strings.HasPrefix(f[1], "bookworm") && !seen[line] {
			seen[line] = true
			fmt.Fprintf(&list, "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n", f[0], f[1])
		}
	}
	if list.Len() == 0 {
		return "", fmt.Errorf("apt on this machine has no archive of bookworm")
	}
	return list.String(), nil
}

// run runs a tool, whose last words explain its failure.
func run(cmd *exec.Cmd) error {
	out, err := cmd.CombinedOutput()
	if err != nil {
		lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
		last := bytes.Join(lines[max(0, len(lines)-8):], []byte("\n"))
		return fmt.Errorf("%s: %w\n%s", cmd.Args[0], err, last)
	}
	return nil
}
