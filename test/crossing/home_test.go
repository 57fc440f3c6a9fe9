package crossing

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/hypervisor/fakehost"
	"consort.dev/consort/test/account"
)

// home is the home folder of ana in a played guest. What the agent runs in that
// guest runs here as root, and sees an account of hers.
type home struct{ *account.Account }

func newHome(t *testing.T) *home {
	t.Helper()
	h := &home{account.New(t)}
	if err := os.WriteFile(filepath.Join(h.Dir, "x"), []byte("outside"), 0o644); err != nil {
		t.Fatal(err)
	}
	return h
}

// run is the guest's shell.
func (h *home) run(ctx context.Context, m driver.Machine, cmd driver.Command) (driver.Output, error) {
	if len(cmd.Args) < 4 || cmd.Args[3] != "files" {
		return fakehost.Shell(ctx, m, cmd)
	}
	exit, out, said, err := h.Run(ctx, cmd.Args, cmd.Stdin)
	return driver.Output{Exit: exit, Stdout: out, Stderr: said}, err
}

// put makes a file of ana's.
func (h *home) put(name string, content []byte) error {
	at := filepath.Join(h.Home, name)
	return errors.Join(os.MkdirAll(filepath.Dir(at), 0o777), os.WriteFile(at, content, 0o666), os.Chown(at, account.ID, account.ID))
}

// holds returns every file in the home, by its path there.
func (h *home) holds() (map[string][]byte, error) {
	all := map[string][]byte{}
	err := filepath.WalkDir(h.Home, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		all[strings.TrimPrefix(path, h.Home+"/")] = b
		return err
	})
	return all, err
}

// clear removes everything in the home.
func (h *home) clear() error {
	all, err := os.ReadDir(h.Home)
	for _, e := range all {
		err = errors.Join(err, os.RemoveAll(filepath.Join(h.Home, e.Name())))
	}
	return err
}
