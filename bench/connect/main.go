// Command connect measures how long a person waits from Connect to the first
// frame, beside QEMU alone with the same image on the same machine.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"image"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/internal/rfb"
)

type options struct {
	binary string
	cache  string
	out    string
	runs   int
}

func main() {
	o := options{}
	flag.StringVar(&o.binary, "consort", "bin/consort", "the binary to measure")
	flag.StringVar(&o.cache, "cache", ".cache", "where images are kept")
	flag.StringVar(&o.out, "out", "bench/results/connect.json", "where the result is written")
	flag.IntVar(&o.runs, "runs", 20, "runs of each")
	flag.Parse()
	if err := run(context.Background(), o); err != nil {
		fmt.Fprintln(os.Stderr, "bench connect:", err)
		os.Exit(1)
	}
}

// samples are milliseconds by what was measured.
type samples map[string][]float64

func run(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp("", "cbc")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o711); err != nil {
		return err
	}
	s := samples{}
	up, err := start(ctx, o, dir, "examples/first-desktop/image.yaml", "bench/connect/estate.yaml")
	if err != nil {
		return err
	}
	defer func() { up.remove(context.WithoutCancel(ctx)) }()
	for range 5 {
		if err := up.restart(ctx, s); err != nil {
			return err
		}
	}
	alone, err := newAlone(ctx, up, o, dir)
	if err != nil {
		return err
	}
	for i := range o.runs {
		if err := up.turnOff(ctx); err != nil {
			return err
		}
		// Interleaved, so that whatever else the machine does meets both.
		if err := alone.boot(ctx, s); err != nil {
			return fmt.Errorf("QEMU alone, run %d: %w", i+1, err)
		}
		if err := up.connect(ctx, "stopped", s); err != nil {
			return fmt.Errorf("stopped, run %d: %w", i+1, err)
		}
		if err := up.connect(ctx, "running", s); err != nil {
			return fmt.Errorf("running, run %d: %w", i+1, err)
		}
		fmt.Fprintf(os.Stderr, "\rrun %d of %d: alone %.1f s, stopped %.1f s, running %.0f ms ", i+1, o.runs,
			last(s["qemu_alone_first_frame"])/1000, last(s["stopped_first_frame"])/1000, last(s["running_first_frame"]))
	}
	fmt.Fprintln(os.Stderr)
	return report(o, s)
}

func last(v []float64) float64 { return v[len(v)-1] }

// up is a consort that runs.
type upProcess struct {
	o      options
	dir    string
	cmd    *exec.Cmd
	client *api.Client
}

const project, desktop = "default", "bench"

func start(ctx context.Context, o options, dir string, apply ...string) (*upProcess, error) {
	u := &upProcess{o: o, dir: dir}
	var err error
	if u.client, err = api.NewClient(api.Options{Server: filepath.Join(dir, "run", "api.sock")}); err != nil {
		return nil, err
	}
	return u, u.run(ctx, apply...)
}

// run starts the process and waits for its sign-in link.
func (u *upProcess) run(ctx context.Context, apply ...string) error {
	args := []string{"up", "--state", u.dir, "--images", filepath.Join(u.o.cache, "images"), "--listen", "127.0.0.1:0"}
	for _, a := range apply {
		args = append(args, "--apply", a)
	}
	u.cmd = exec.CommandContext(ctx, u.o.binary, args...)
	u.cmd.Stderr = os.Stderr
	out, err := u.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := u.cmd.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "#code=") {
			go io.Copy(io.Discard, out)
			return nil
		}
		fmt.Fprintln(os.Stderr, lines.Text())
	}
	return errors.Join(errors.New("consort ended before it was up"), u.cmd.Wait())
}

// restart stops consort, starts it on the existing estate, and measures until
// the API answers, and what it takes when idle.
func (u *upProcess) restart(ctx context.Context, s samples) error {
	u.cmd.Process.Signal(os.Interrupt)
	u.cmd.Wait()
	began := time.Now()
	if err := u.run(ctx); err != nil {
		return err
	}
	if _, err := u.client.Me(ctx); err != nil {
		return err
	}
	s.add("up_ready", began)
	// Idle is after the garbage of starting is gone; five seconds are plenty.
	wait(ctx, 5*time.Second)
	pss, err := pssMiB(u.cmd.Process.Pid)
	if err != nil {
		return err
	}
	s["up_idle_mib"] = append(s["up_idle_mib"], pss)
	return nil
}

func (s samples) add(name string, began time.Time) {
	s[name] = append(s[name], float64(time.Since(began).Microseconds())/1000)
}

// connect presses Connect and waits for the first frame. The desktop's own
// colour shows that it is drawn.
func (u *upProcess) connect(ctx context.Context, state string, s samples) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	began := time.Now()
	session, err := u.client.Connect(ctx, project, desktop, "")
	if err != nil {
		return err
	}
	watching, stop := context.WithCancel(ctx)
	defer stop()
	for e := range api.Watch[estate.Session](watching, u.client, project) {
		if e.Type == api.Is && e.Object.Metadata.Name == session.Metadata.Name {
			session = e.Object
			if st := session.Status.State; st == estate.SessionReady || st == estate.SessionEnded {
				break
			}
		}
		if e.Type == api.Ended {
			return e.Err
		}
	}
	stop()
	if session.Status.State != estate.SessionReady {
		return fmt.Errorf("session is %s: %s", session.Status.State, session.Status.Because)
	}
	s.add(state+"_session_ready", began)
	t, err := u.client.Ticket(ctx, project, session.Metadata.Name, false)
	if err != nil {
		return err
	}
	conn, err := u.client.Tunnel(ctx, t.Ticket)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := firstFrame(conn); err != nil {
		return err
	}
	s.add(state+"_first_frame", began)
	for _, p := range session.Status.Phases {
		s[state+"_phase_"+p.Name] = append(s[state+"_phase_"+p.Name], float64(p.Ended.Sub(p.Began).Microseconds())/1000)
	}
	return u.end(ctx, session)
}

func (u *upProcess) end(ctx context.Context, s *estate.Session) error {
	_, err := api.Modify(ctx, u.client, project, s.Metadata.Name, func(s *estate.Session) error {
		s.Spec.End = true
		return nil
	})
	return err
}

// firstFrame reads one whole picture.
func firstFrame(conn io.ReadWriteCloser) error {
	c, err := rfb.NewClient(conn, rfb.Proof{})
	if err != nil {
		return err
	}
	if err := c.Request(false); err != nil {
		return err
	}
	if err := c.NextFrame(); err != nil {
		return err
	}
	if !drawn(c.Image()) {
		return errors.New("the first frame shows no desktop")
	}
	return nil
}

// drawn reports whether a quarter of the picture has the desktop's background
// colour, which nothing before the desktop has.
func drawn(m *image.RGBA) bool {
	b := m.Bounds()
	var hits, all int
	for y := b.Min.Y; y < b.Max.Y; y += 8 {
		for x := b.Min.X; x < b.Max.X; x += 8 {
			all++
			p := m.RGBAAt(x, y)
			if near(p.R, background[0]) && near(p.G, background[1]) && near(p.B, background[2]) {
				hits++
			}
		}
	}
	return all > 0 && hits*4 >= all
}

// background is the root window's colour in the examples' images.
var background = [3]uint8{0x2e, 0x6f, 0x8e}

func near(a, b uint8) bool { return max(a, b)-min(a, b) <= 8 }

// turnOff turns the desktop off and waits until it is.
func (u *upProcess) turnOff(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	_, err := api.Modify(ctx, u.client, project, desktop, func(d *estate.Desktop) error {
		d.Spec.Power = estate.Off
		return nil
	})
	if err != nil {
		return err
	}
	for e := range api.Watch[estate.Desktop](ctx, u.client, project) {
		if e.Type == api.Is && e.Object.Metadata.Name == desktop && e.Object.Status.State == estate.DesktopOff {
			return nil
		}
	}
	return ctx.Err()
}

// remove deletes the desktop, so that its machine goes, and stops consort.
func (u *upProcess) remove(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	u.client.Delete(ctx, estate.Ref{Kind: "Desktop", Project: project, Name: desktop}, api.Write{})
	for {
		all, _, err := api.List[estate.Machine](ctx, u.client, api.Filter{})
		if err != nil || len(all) == 0 {
			break
		}
		wait(ctx, 100*time.Millisecond)
	}
	u.cmd.Process.Signal(os.Interrupt)
	u.cmd.Wait()
}

// alone is QEMU by hand: the same image, the same machine, nothing of ours.
type alone struct {
	dir  string
	base string
	form estate.DiskFormat
}

func newAlone(ctx context.Context, u *upProcess, o options, dir string) (*alone, error) {
	all, _, err := api.List[estate.Image](ctx, u.client, api.Filter{Project: project})
	if err != nil || len(all) != 1 {
		return nil, errors.Join(fmt.Errorf("%d images, want 1", len(all)), err)
	}
	base, err := filepath.Abs(filepath.Join(o.cache, "images", all[0].Status.Digest.Hex()))
	return &alone{dir: dir, base: base, form: all[0].Status.Format}, err
}

// boot starts QEMU on a fresh overlay and waits for the drawn desktop.
func (a *alone) boot(ctx context.Context, s samples) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	disk, screen := filepath.Join(a.dir, "alone.qcow2"), filepath.Join(a.dir, "alone.vnc")
	defer os.Remove(disk)
	began := time.Now()
	make := exec.CommandContext(ctx, "qemu-img", "create", "-q", "-f", "qcow2", "-F", string(a.form), "-b", a.base, disk)
	if out, err := make.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	q := exec.CommandContext(ctx, "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-machine", "q35", "-accel", "tcg,thread=multi",
		"-cpu", "max", "-smp", "2", "-m", "1024", "-device", "VGA,xres=1280,yres=800", "-display", "none", "-vnc", "unix:"+screen,
		"-drive", "if=none,id=d,format=qcow2,file="+disk, "-device", "virtio-blk-pci,drive=d",
		"-device", "virtio-keyboard-pci", "-device", "virtio-tablet-pci", "-device", "virtio-rng-pci")
	var words bytes.Buffer
	q.Stderr = &words
	if err := q.Start(); err != nil {
		return err
	}
	defer func() { q.Process.Kill(); q.Wait() }()
	for ctx.Err() == nil {
		if seen(screen) {
			s.add("qemu_alone_first_frame", began)
			return nil
		}
		wait(ctx, 50*time.Millisecond)
	}
	return fmt.Errorf("%w: %s", ctx.Err(), words.String())
}

// seen looks at the screen once.
func seen(path string) bool {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return false
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	return firstFrame(conn) == nil
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// pssMiB returns a process's proportional share of memory (proc(5), smaps_rollup).
func pssMiB(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
			kib, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kib / 1024, err
		}
	}
	return 0, errors.New("no Pss in smaps_rollup")
}

// result is the form of every file in bench/results.
type result struct {
	Name    string             `json:"name"`
	Commit  string             `json:"commit"`
	At      time.Time          `json:"at"`
	Machine string             `json:"machine"`
	Metrics map[string]float64 `json:"metrics"`
	Samples samples            `json:"samples"`
}

func report(o options, s samples) error {
	m := map[string]float64{}
	names := make([]string, 0, len(s))
	for n, v := range s {
		names = append(names, n)
		if n == "up_idle_mib" {
			m[n] = percentile(v, 50)
			continue
		}
		m[n+"_p50_ms"], m[n+"_p95_ms"] = percentile(v, 50), percentile(v, 95)
	}
	m["up_ready_ms"] = m["up_ready_p50_ms"]
	slices.Sort(names)
	fmt.Printf("%-34s %5s %10s %10s %10s %10s\n", "", "runs", "min", "p50", "p95", "max")
	for _, n := range names {
		fmt.Printf("%-34s %5d %10.1f %10.1f %10.1f %10.1f\n", n, len(s[n]), percentile(s[n], 0), percentile(s[n], 50), percentile(s[n], 95), percentile(s[n], 100))
	}
	commit, _ := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	r := result{"connect", strings.TrimSpace(string(commit)), time.Now().UTC().Truncate(time.Second), machine(), m, s}
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(o.out), 0o755); err != nil {
		return err
	}
	return os.WriteFile(o.out, append(b, '\n'), 0o644)
}

// percentile is the nearest-rank percentile.
func percentile(v []float64, p int) float64 {
	if len(v) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(v))
	return sorted[max(0, (len(sorted)*p+99)/100-1)]
}

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
	syscall.Uname(&u)
	var kernel []byte
	for _, c := range u.Release {
		if c == 0 {
			break
		}
		kernel = append(kernel, byte(c))
	}
	return fmt.Sprintf("%s, %d cores, Linux %s, QEMU by software emulation unless said", model, runtime.NumCPU(), kernel)
}
