// Command connect measures how long a person waits from Connect to the first
// frame, beside QEMU alone with the same image on the same machine.
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/bench/picture"
	"consort.dev/consort/bench/result"
	"consort.dev/consort/estate"
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

func run(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp("", "cbc")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o711); err != nil {
		return err
	}
	s := result.Samples{}
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
			s.Last("qemu_alone_first_frame")/1000, s.Last("stopped_first_frame")/1000, s.Last("running_first_frame"))
	}
	fmt.Fprintln(os.Stderr)
	return report(o, s)
}

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
func (u *upProcess) restart(ctx context.Context, s result.Samples) error {
	u.cmd.Process.Signal(os.Interrupt)
	u.cmd.Wait()
	began := time.Now()
	if err := u.run(ctx); err != nil {
		return err
	}
	if _, err := u.client.Me(ctx); err != nil {
		return err
	}
	s.Since("up_ready", began)
	// Idle is after the garbage of starting is gone; five seconds are plenty.
	wait(ctx, 5*time.Second)
	kib, err := result.PSS(u.cmd.Process.Pid)
	if err != nil {
		return err
	}
	s.Add("up_idle_mib", kib/1024)
	return nil
}

// connect presses Connect and waits for the first frame. The desktop's own
// colour shows that it is drawn.
func (u *upProcess) connect(ctx context.Context, state string, s result.Samples) error {
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
	s.Since(state+"_session_ready", began)
	t, err := u.client.Ticket(ctx, project, session.Metadata.Name, false)
	if err != nil {
		return err
	}
	conn, err := u.client.Tunnel(ctx, t.Ticket)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := picture.FirstFrame(conn); err != nil {
		return err
	}
	s.Since(state+"_first_frame", began)
	for _, p := range session.Status.Phases {
		s.Add(state+"_phase_"+p.Name, float64(p.Ended.Sub(p.Began).Microseconds())/1000)
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
func (a *alone) boot(ctx context.Context, s result.Samples) error {
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
			s.Since("qemu_alone_first_frame", began)
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
	return picture.FirstFrame(conn) == nil
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func report(o options, s result.Samples) error {
	m := map[string]float64{}
	for n := range s {
		if n == "up_idle_mib" {
			m[n] = s.Percentile(n, 50)
			continue
		}
		m[n+"_p50_ms"], m[n+"_p95_ms"] = s.Percentile(n, 50), s.Percentile(n, 95)
	}
	m["up_ready_ms"] = m["up_ready_p50_ms"]
	s.Table(os.Stdout)
	return result.Write(o.out, "connect", m, s)
}
