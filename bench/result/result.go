// Package result is the form of every file in bench/results: figures, what they
// were made from, and where.
package result

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Samples are what was measured, by name, in the order it was.
type Samples map[string][]float64

// Add notes one sample.
func (s Samples) Add(name string, v float64) { s[name] = append(s[name], v) }

// Since notes the milliseconds since began.
func (s Samples) Since(name string, began time.Time) {
	s.Add(name, float64(time.Since(began).Microseconds())/1000)
}

// Last returns the newest sample, or 0.
func (s Samples) Last(name string) float64 {
	if v := s[name]; len(v) > 0 {
		return v[len(v)-1]
	}
	return 0
}

// Percentile is the nearest-rank percentile; of no samples it is 0.
func (s Samples) Percentile(name string, p int) float64 {
	v := s[name]
	if len(v) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(v))
	return sorted[max(0, (len(sorted)*p+99)/100-1)]
}

// Table writes the spread of every sample.
func (s Samples) Table(w io.Writer) {
	names := make([]string, 0, len(s))
	for n := range s {
		names = append(names, n)
	}
	slices.Sort(names)
	fmt.Fprintf(w, "%-34s %5s %10s %10s %10s %10s\n", "", "runs", "min", "p50", "p95", "max")
	for _, n := range names {
		fmt.Fprintf(w, "%-34s %5d %10.1f %10.1f %10.1f %10.1f\n", n, len(s[n]),
			s.Percentile(n, 0), s.Percentile(n, 50), s.Percentile(n, 95), s.Percentile(n, 100))
	}
}

// file is what is written.
type file struct {
	Name    string             `json:"name"`
	Commit  string             `json:"commit"`
	At      time.Time          `json:"at"`
	Machine string             `json:"machine"`
	Metrics map[string]float64 `json:"metrics"`
	Samples Samples            `json:"samples"`
}

// Write writes the result of the named benchmark to the path.
func Write(path, name string, metrics map[string]float64, s Samples) error {
	commit, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		return fmt.Errorf("ask git for the commit: %w", err)
	}
	b, err := json.MarshalIndent(file{
		name, strings.TrimSpace(string(commit)), time.Now().UTC().Truncate(time.Second), machine(), metrics, s,
	}, "", " ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

// PSS returns a process's proportional share of memory in KiB (proc(5),
// smaps_rollup).
func PSS(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
			return strconv.ParseFloat(strings.Fields(rest)[0], 64)
		}
	}
	return 0, errors.New("no Pss in smaps_rollup")
}

// machine says on what it was measured.
func machine() string {
	model := "unknown CPU"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
				model = strings.TrimSpace(v)
				break
			}
		}
	}
	var u syscall.Utsname
	_ = syscall.Uname(&u) // without it the kernel has no name
	var kernel []byte
	for _, c := range u.Release {
		if c == 0 {
			break
		}
		kernel = append(kernel, byte(c))
	}
	return fmt.Sprintf("%s, %d cores, Linux %s, QEMU by software emulation unless said", model, runtime.NumCPU(), kernel)
}
