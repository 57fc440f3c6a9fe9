package stream

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"consort.dev/consort/fault"
)

// apt chooses and fetches packages for a system that is not this one: it reads
// that system's list of installed packages and keeps everything else it needs
// in folders of its own. Sources and keys are this machine's.
type apt struct {
	cache  string // kept from build to build: package lists and archives
	work   string // of this build
	status string // the other system's /var/lib/dpkg/status
	suite  string
}

// preferences admits the suite and its updates and nothing else, whatever
// further sources this machine has.
const preferences = `Package: *
Pin: release n=%[1]s
Pin-Priority: 500

Package: *
Pin: release n=%[1]s-updates
Pin-Priority: 500

Package: *
Pin: release n=%[1]s-security
Pin-Priority: 500

Package: *
Pin: release o=?*
Pin-Priority: -1
`

// prepare makes the folders that apt expects.
func (a *apt) prepare() error {
	for _, dir := range []string{
		filepath.Join(a.cache, "lists/partial"), filepath.Join(a.cache, "archives/partial"), filepath.Join(a.work, "state"),
	} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(a.work, "preferences"), fmt.Appendf(nil, preferences, a.suite), 0o644)
}

// arguments are those that every call of apt begins with.
func (a *apt) arguments(more ...string) []string {
	return append([]string{
		"-q", "-o", "Dir::State=" + filepath.Join(a.work, "state"),
		"-o", "Dir::State::status=" + a.status,
		"-o", "Dir::State::lists=" + filepath.Join(a.cache, "lists"),
		"-o", "Dir::Cache=" + a.work,
		"-o", "Dir::Cache::srcpkgcache=" + filepath.Join(a.cache, "srcpkgcache.bin"),
		"-o", "Dir::Cache::archives=" + filepath.Join(a.cache, "archives"),
		"-o", "Dir::Etc::preferences=" + filepath.Join(a.work, "preferences"),
		"-o", "Dir::Etc::preferencesparts=/dev/null",
		"-o", "APT::Install-Recommends=false",
		"-o", "APT::Install-Suggests=false",
		"-o", "APT::Update::Post-Invoke-Success=", "-o", "APT::Update::Post-Invoke=",
		"-o", "Acquire::Languages=none",
		"-o", "Acquire::Retries=3",
		// Builds go on at once, but not while one refreshes the lists.
		"-o", "DPkg::Lock::Timeout=300",
	}, more...)
}

// run runs apt-get and returns what it printed. progress, when not nil, is told
// percents.
func (a *apt) run(ctx context.Context, progress func(int), args ...string) (string, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer r.Close()
	args = a.arguments(append([]string{"-o", "APT::Status-Fd=3"}, args...)...)
	cmd := exec.CommandContext(ctx, "apt-get", args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	cmd.ExtraFiles = []*os.File{w}
	cmd.WaitDelay = 5 * time.Second
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	err = cmd.Start()
	w.Close()
	if err != nil {
		return "", fault.Unavailable.Errorf("run apt-get: %w; install the package apt", err)
	}
	readStatus(r, progress)
	if err := cmd.Wait(); err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		return "", fmt.Errorf("apt-get: %s", complaints(complaint.String(), err))
	}
	return out.String(), nil
}

// readStatus reads apt's "dlstatus:1:12.5:text" lines until the end.
func readStatus(r io.Reader, progress func(int)) {
	for lines := bufio.NewScanner(r); lines.Scan(); {
		f := strings.SplitN(lines.Text(), ":", 4)
		if len(f) < 3 || f[0] != "dlstatus" || progress == nil {
			continue
		}
		if p, err := strconv.ParseFloat(f[2], 64); err == nil {
			progress(min(100, max(0, int(p))))
		}
	}
}

// complaints returns apt's error lines in one.
func complaints(stderr string, err error) string {
	var lines []string
	for line := range strings.Lines(stderr) {
		if text, is := strings.CutPrefix(strings.TrimSpace(line), "E: "); is {
			lines = append(lines, text)
		}
	}
	if len(lines) == 0 {
		return err.Error()
	}
	return strings.Join(lines, "; ")
}

// refresh fetches the package lists when those here are older than age. Old
// lists are better than none: without a network it goes on with them.
func (a *apt) refresh(ctx context.Context, age time.Duration) error {
	stamp := filepath.Join(a.cache, "lists/refreshed")
	at, err := os.Stat(stamp)
	if err == nil && time.Since(at.ModTime()) < age {
		return nil
	}
	had := err == nil
	if _, err := a.run(ctx, nil, "update"); err != nil {
		if had && ctx.Err() == nil {
			return nil
		}
		return fault.Unavailable.Errorf("fetch the package lists: %w; check the machine's network and /etc/apt", err)
	}
	return os.WriteFile(stamp, nil, 0o644)
}

// knows checks that this machine has sources of the suite.
func (a *apt) knows(ctx context.Context) error {
	out, err := a.run(ctx, nil, "indextargets", "--format", "$(CODENAME)")
	if err != nil {
		return fault.Unavailable.Errorf("list the package sources: %w", err)
	}
	have := strings.Fields(out)
	slices.Sort(have)
	if have = slices.Compact(have); !slices.Contains(have, a.suite) {
		return fault.Invalid.Errorf("the image is Debian %s and /etc/apt has sources of %s only; add a source of %s",
			a.suite, strings.Join(have, ", "), a.suite)
	}
	return nil
}

// choose returns the packages that must be added to the system, as names of
// archives, sorted.
func (a *apt) choose(ctx context.Context, packages []string) ([]string, error) {
	out, err := a.run(ctx, nil, append([]string{"--simulate", "--no-remove", "install", "--"}, packages...)...)
	if err != nil {
		return nil, fault.Invalid.Errorf("choose packages: %w", err)
	}
	var debs []string
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "Inst ") {
			continue
		}
		deb, err := archiveName(line)
		if err != nil {
			return nil, err
		}
		debs = append(debs, deb)
	}
	if len(debs) == 0 {
		return nil, fault.Invalid.Errorf("the image holds %s already; a layer of it would be empty", strings.Join(packages, ", "))
	}
	slices.Sort(debs)
	return debs, nil
}

// archiveName reads "Inst name [old] (version origin, ... [arch]) ..." and
// returns the name apt gives the archive. name may end in ":arch".
func archiveName(line string) (string, error) {
	f := strings.Fields(line)
	open := strings.IndexByte(line, '(')
	shut := strings.LastIndexByte(line, ')')
	if len(f) < 3 || open < 0 || shut < open {
		return "", fault.Internal.Errorf("apt-get says %q", line)
	}
	name, _, _ := strings.Cut(f[1], ":")
	in := strings.Fields(line[open+1 : shut])
	if len(in) < 2 {
		return "", fault.Internal.Errorf("apt-get says %q", line)
	}
	arch := strings.Trim(in[len(in)-1], "[]")
	quote := strings.NewReplacer("%", "%25", "_", "%5f", ":", "%3a")
	deb := quote.Replace(name) + "_" + quote.Replace(in[0]) + "_" + arch + ".deb"
	if strings.ContainsAny(deb, "/\x00") || deb[0] == '.' {
		return "", fault.Invalid.Errorf("package archive %q", deb)
	}
	return deb, nil
}

// fetch downloads the packages; apt checks them against the signed lists.
func (a *apt) fetch(ctx context.Context, packages []string, progress func(int)) error {
	args := append([]string{"--yes", "--download-only", "--no-remove", "install", "--"}, packages...)
	if _, err := a.run(ctx, progress, args...); err != nil {
		return fault.Unavailable.Errorf("download packages: %w", err)
	}
	return nil
}
