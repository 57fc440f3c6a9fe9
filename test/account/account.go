// Package account gives tests a person's account that only one command at a time
// sees: this machine has none of that name.
package account

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// ID is ana's, as a user and as a group; nobody's on this machine.
const ID = 47110

// Account is ana's. Her home lies in a folder that she passes through.
type Account struct{ Dir, Home string }

// New makes the account, which the test removes.
func New(t testing.TB) *Account {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("becomes somebody else: needs root")
	}
	dir, err := os.MkdirTemp("", "account")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	a := &Account{dir, filepath.Join(dir, "home")}
	err = errors.Join(
		os.Chmod(dir, 0o711), os.Mkdir(a.Home, 0o700), os.Chown(a.Home, ID, ID),
		os.WriteFile(filepath.Join(dir, "passwd"), fmt.Appendf(nil, "root:x:0:0::/root:/bin/sh\nana:x:%d:%d::%s:/bin/sh\n", ID, ID, a.Home), 0o644),
		os.WriteFile(filepath.Join(dir, "group"), fmt.Appendf(nil, "root:x:0:\nana:x:%d:\n", ID), 0o644),
	)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// Run runs a command as root, who sees the account. An exit unequal to zero is
// no error.
func (a *Account) Run(ctx context.Context, args []string, stdin []byte) (exit int, stdout, stderr []byte, err error) {
	const see = `mount --bind "$1/passwd" /etc/passwd && mount --bind "$1/group" /etc/group && shift && exec "$@"`
	c := exec.CommandContext(ctx, "unshare", append([]string{"--mount", "/bin/sh", "-c", see, "see", a.Dir}, args...)...)
	c.Stdin = bytes.NewReader(stdin)
	var out, said bytes.Buffer
	c.Stdout, c.Stderr = &out, &said
	err = c.Run()
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		err = nil
	}
	return c.ProcessState.ExitCode(), out.Bytes(), said.Bytes(), err
}
