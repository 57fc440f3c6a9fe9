package image

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"consort.dev/consort/fault"
)

// tools are the programs a build runs, and the Debian package that has each.
var tools = [...][2]string{
	{"unshare", "util-linux"}, {"mmdebstrap", "mmdebstrap"}, {"apt-get", "apt"}, {"dpkg-deb", "dpkg"},
	{"mkfs.ext4", "e2fsprogs"}, {"mkfs.vfat", "dosfstools"}, {"mcopy", "mtools"}, {"sfdisk", "fdisk"},
	{"grub-mkimage", "grub-common"}, {"qemu-img", "qemu-utils"}, {"lz4", "lz4"},
}

// Able says why this host cannot build images, or returns nil.
func Able() error { return missingTools() }

// missingTools names what must be installed or done before a build can begin.
func missingTools() error {
	if os.Geteuid() != 0 {
		return fault.Denied.Errorf("build image: it takes root to make a system's files; run as root")
	}
	var missing []string
	for _, t := range tools {
		if _, err := exec.LookPath(t[0]); err != nil {
			missing = append(missing, t[1])
		}
	}
	for dir, pkg := range map[string]string{grubBIOS: "grub-pc-bin", grubUEFI: "grub-efi-amd64-bin"} {
		if _, err := os.Stat(dir); err != nil {
			missing = append(missing, pkg)
		}
	}
	if missing != nil {
		return fault.Unavailable.Errorf("build image: programs are missing; apt-get install %s", strings.Join(missing, " "))
	}
	return nil
}

// tool runs a program, its output into the log. It dies with this process.
func (b *build) tool(ctx context.Context, name string, args ...string) error {
	return b.run(command(ctx, name, args...), b.log)
}

// boxed runs a program, and all that it starts, in mount and process
// namespaces of their own: nothing it mounts is seen outside, and nothing it
// starts outlives it or us.
func (b *build) boxed(ctx context.Context, out io.Writer, stdin string, args ...string) error {
	cmd := command(ctx, "unshare", append([]string{"--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	return b.run(cmd, out)
}

// inside runs a program of the new system in it.
func (b *build) inside(ctx context.Context, args ...string) error {
	return b.boxed(ctx, b.log, "", append([]string{"chroot", b.root()}, args...)...)
}

func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 10 * time.Second
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "SOURCE_DATE_EPOCH="+epoch, "DEBIAN_FRONTEND=noninteractive",
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "MTOOLS_SKIP_CHECK=1")
	return cmd
}

func (b *build) run(cmd *exec.Cmd, out io.Writer) error {
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", cmd.Args[0], err)
	}
	return nil
}

// epoch is the time all files seem to be from, in seconds since 1970: builds
// on two days differ by their packages only. It is 1 January 2026.
const epoch = "1767225600"

// tail passes on what is written and remembers the last lines.
type tail struct {
	also io.Writer
	mu   sync.Mutex
	last []byte
}

const tailBytes = 1500

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = append(t.last, p...)
	if over := len(t.last) - tailBytes; over > 0 {
		t.last = append(t.last[:0], t.last[over:]...)
	}
	if t.also != nil {
		return t.also.Write(p)
	}
	return len(p), nil
}

// String returns the last whole lines.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := t.last
	if len(text) >= tailBytes-1 {
		if _, rest, ok := bytes.Cut(text, []byte("\n")); ok {
			text = rest
		}
	}
	return strings.TrimSpace(string(text))
}
