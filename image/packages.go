package image

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"consort.dev/consort/fault"
)

// smallest is installed in every image: what boots it and what makes accounts.
var smallest = [...]string{"systemd-sysv", "udev", "kmod", "passwd", "busybox-static", "iproute2"}

// left is what every image is without: nobody reads it in a desktop, and the
// package database stays complete.
var left = [...]string{"/usr/share/man/*", "/usr/share/doc/*", "/usr/share/info/*", "/usr/share/lintian/*",
	"/usr/share/locale/*", "/usr/share/bug/*"}

// keyring signs Debian's archives.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// installPackages makes the system's files from the packages of the archives
// this host uses itself.
func (b *build) installPackages(ctx context.Context) error {
	sources, err := b.sources(ctx)
	if err != nil {
		return err
	}
	include := append(slices.Clone(smallest[:]), b.recipe.Packages...)
	debs := filepath.Join(b.draft.Dir, "kernel")
	if err := os.Mkdir(debs, 0o755); err != nil {
		return err
	}
	args := []string{"mmdebstrap", "--verbose", "--mode=root", "--variant=minbase", "--architectures=amd64",
		"--include=" + strings.Join(include, ","),
		`--aptopt=APT::Install-Recommends "false"`, `--aptopt=Acquire::Languages "none"`,
		"--customize-hook=" + fetchKernel(debs)}
	for _, glob := range append(slices.Clone(left[:]), b.recipe.Exclude...) {
		args = append(args, "--dpkgopt=path-exclude="+glob)
	}
	args = append(args, b.recipe.Suite, b.root(), "-")
	if err := b.boxed(ctx, &aptProgress{b: b}, sources, args...); err != nil {
		return err
	}
	status, err := os.ReadFile(b.path("var/lib/dpkg/status"))
	if err != nil {
		return err
	}
	b.packages = bytes.Count(status, []byte("\nStatus: install ok installed\n"))
	return nil
}

// fetchKernel downloads the package of the newest kernel with the archives of
// the new system. It is unpacked and not installed: its dependencies make an
// initramfs, and ours is made from what it holds.
func fetchKernel(dir string) string {
	return "set -e; cd '" + strings.ReplaceAll(dir, "'", `'\''`) + "'; " +
		`k=$(apt-cache depends linux-image-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -n1); ` +
		`test -n "$k"; apt-get -o APT::Sandbox::User=root download "$k"`
}

// sources lists this host's archives of the suite, its updates and its
// security fixes, in the one-line form.
func (b *build) sources(ctx context.Context) (string, error) {
	var out bytes.Buffer
	cmd := command(ctx, "apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Identifier: Packages")
	if err := b.run(cmd, &out); err != nil {
		return "", fmt.Errorf("ask apt for its archives: %w: %s", err, out.String())
	}
	sources := pickSources(out.String(), b.recipe.Suite)
	if sources == "" {
		return "", fault.Invalid.Errorf("apt on this host has no archive of suite %q; add one to /etc/apt/sources.list.d or change spec.recipe.suite", b.recipe.Suite)
	}
	return sources, nil
}

func pickSources(targets, suite string) string {
	var list strings.Builder
	seen := map[string]bool{}
	for line := range strings.Lines(targets) {
		f := strings.Fields(line)
		if len(f) != 3 || f[2] != "main" || seen[line] {
			continue
		}
		if pocket, ok := strings.CutPrefix(f[1], suite); ok && slices.Contains([]string{"", "-updates", "-security", "/updates"}, pocket) {
			seen[line] = true
			fmt.Fprintf(&list, "deb [signed-by=%s] %s %s main\n", keyring, f[0], f[1])
		}
	}
	return list.String()
}

// aptProgress reads how far apt is out of what it prints.
type aptProgress struct {
	b     *build
	line  []byte
	total int // packages to install, over all runs of apt
	lines int // of progress seen
}

var newlyInstalled = regexp.MustCompile(`, (\d+) newly installed`)

// Write implements io.Writer.
func (a *aptProgress) Write(p []byte) (int, error) {
	a.line = append(a.line, p...)
	for {
		i := bytes.IndexByte(a.line, '\n')
		if i < 0 {
			break
		}
		a.see(a.line[:i])
		a.line = a.line[i+1:]
	}
	return a.b.log.Write(p)
}

// see counts: each package is fetched, unpacked and set up.
func (a *aptProgress) see(line []byte) {
	if m := newlyInstalled.FindSubmatch(line); m != nil {
		n, _ := strconv.Atoi(string(m[1]))
		a.total += n
	}
	for _, prefix := range []string{"Get:", "Unpacking ", "Setting up "} {
		if bytes.HasPrefix(line, []byte(prefix)) {
			a.lines++
			a.b.advance(float64(a.lines) / float64(3*max(a.total, 60+len(a.b.recipe.Packages)*8)))
		}
	}
}
