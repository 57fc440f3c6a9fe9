// Package virtrpctest runs a real daemon of a test's own, in a folder of the
// test's, by a user without rights.
package virtrpctest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Daemon is a daemon that ends with its test, and its domains with it. Where
// the test is root it is that of the whole system, and keeps to its folder by
// mounts that only it sees; else it is that of a user's session.
type Daemon struct {
	Dir    string // its files; short, for sockets
	Socket string
	URI    string // of its driver for real machines
	Port   int    // of TCP on the loopback
	cache  string // what it found out about emulators, which takes it 10 s
	env    []string
	cmd    *exec.Cmd
}

// startLimit is how long a daemon may take to answer on a loaded machine.
const startLimit = time.Minute

// Start starts a daemon, or skips the test where there is none to start. What
// it learns about emulators is kept in the folder that CONSORT_TEST_CACHE
// names, where there is one.
func Start(t testing.TB) *Daemon {
	t.Helper()
	for _, p := range []string{daemonProgram, logProgram} {
		if _, err := os.Stat(p); err != nil {
			t.Skipf("%s is not installed (Debian: libvirt-daemon)", p)
		}
	}
	dir, err := os.MkdirTemp("", "virt")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			tellMachines(t, dir)
		}
		os.RemoveAll(dir)
	})
	d := &Daemon{Dir: dir, Port: freePort(t), cache: filepath.Join(dir, "cache")}
	if keep := os.Getenv("CONSORT_TEST_CACHE"); keep != "" {
		d.cache = filepath.Join(keep, "emulators")
	}
	for _, sub := range []string{d.cache, dir + "/cfg/libvirt", dir + "/data", dir + "/run/libvirt", dir + "/log"} {
		if err := os.MkdirAll(sub, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	d.env = []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH")}
	d.Socket, d.URI = dir+"/run/libvirt/libvirt-sock", "qemu:///session"
	if os.Geteuid() == 0 {
		d.URI = "qemu:///system"
	} else {
		d.env = append(d.env, "XDG_CONFIG_HOME="+dir+"/cfg", "XDG_DATA_HOME="+dir+"/data", "XDG_CACHE_HOME="+d.cache, "XDG_RUNTIME_DIR="+dir+"/run")
	}
	d.configure(t)
	d.spawn(t, logProgram, "-p", d.Dir+"/log.pid")
	t.Cleanup(d.killDomains)
	d.reap(t)
	d.Restart(t)
	return d
}

const (
	daemonProgram = "/usr/sbin/libvirtd"
	logProgram    = "/usr/sbin/virtlogd"
)

// tellMachines says what the emulators said last: a machine that has gone off
// took its reason with it.
func tellMachines(t testing.TB, dir string) {
	const last = 2000 // bytes
	logs, _ := filepath.Glob(filepath.Join(dir, "log", "*", "*.log"))
	for _, name := range logs {
		b, _ := os.ReadFile(name)
		t.Logf("%s: ...%s", filepath.Base(name), b[max(0, len(b)-last):])
	}
}

// configure writes the daemon's configuration. A system daemon wants a user for
// its machines, which only Debian's libvirt-daemon-system makes.
func (d *Daemon) configure(t testing.TB) {
	t.Helper()
	files := map[string]string{
		"cfg/libvirt/libvirtd.conf": fmt.Sprintf("host_uuid = %q\nlisten_tls = 0\nlisten_tcp = 1\nlisten_addr = \"127.0.0.1\"\ntcp_port = \"%d\"\nauth_tcp = \"none\"\nauth_unix_rw = \"none\"\n", uuid(t), d.Port),
		"cfg/libvirt/qemu.conf":     "security_driver = \"none\"\ncgroup_controllers = []\nnamespaces = []\n",
	}
	files["kvm"] = "" // where KVM is emulated, its looks at emulators take a minute
	for _, name := range []string{"passwd", "group"} {
		b, err := os.ReadFile("/etc/" + name)
		if err != nil {
			t.Fatal(err)
		}
		line := "libvirt-qemu:x:64055:64055::/nonexistent:/usr/sbin/nologin\n"
		if name == "group" {
			line = "libvirt-qemu:x:64055:\n"
		}
		if !strings.Contains(string(b), "\nlibvirt-qemu:") {
			b = append(b, line...)
		}
		files[name] = string(b)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(d.Dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// hide runs a program with the folders of the system's daemon replaced by ours:
// $1 is the test's, $2 the cache.
const hide = `d=$1 c=$2; shift 2
mkdir -p /etc/libvirt /run/libvirt /var/lib/libvirt /var/cache/libvirt /var/log/libvirt
mount --bind $d/cfg/libvirt /etc/libvirt; mount --bind $d/run/libvirt /run/libvirt
mount --bind $d/data /var/lib/libvirt; mount --bind $d/log /var/log/libvirt; mount --bind $c /var/cache/libvirt
[ ! -e /dev/kvm ] || mount --bind $d/kvm /dev/kvm
mount --bind $d/passwd /etc/passwd; mount --bind $d/group /etc/group
exec "$@"`

// Restart ends the daemon, if it runs, and starts it again; domains run on.
func (d *Daemon) Restart(t testing.TB) {
	t.Helper()
	d.Kill()
	os.Remove(d.Socket)
	d.cmd = d.spawn(t, daemonProgram, "--listen", "-p", d.Dir+"/daemon.pid", "-f", d.Dir+"/cfg/libvirt/libvirtd.conf")
	for end := time.Now().Add(startLimit); ; {
		conn, err := net.Dial("unix", d.Socket)
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(end) {
			b, _ := os.ReadFile(filepath.Join(d.Dir, "libvirtd.log"))
			t.Fatalf("the daemon does not answer: %v\n%s", err, b)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Kill ends the daemon at once, as a crash would.
func (d *Daemon) Kill() {
	if d.cmd != nil {
		d.cmd.Process.Kill()
		d.cmd.Wait() // it was killed; Wait only reaps it
		d.cmd = nil
	}
}

// Pause stops the daemon so that it answers nothing, until resume is called.
func (d *Daemon) Pause() (resume func()) {
	d.cmd.Process.Signal(syscall.SIGSTOP)
	return func() { d.cmd.Process.Signal(syscall.SIGCONT) }
}

// Shell runs the vendor's own client on the daemon, which knows nothing of our
// code, and returns what it says.
func (d *Daemon) Shell(ctx context.Context, uri string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "virsh", append([]string{"-q", "-c", uri + "?socket=" + d.Socket}, args...)...)
	cmd.Env = d.env
	var out, text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &text
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("virsh %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(text.String()))
	}
	return out.String(), nil
}

func (d *Daemon) spawn(t testing.TB, program string, args ...string) *exec.Cmd {
	t.Helper()
	log, err := os.Create(filepath.Join(d.Dir, filepath.Base(program)+".log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(program, args...)
	if os.Geteuid() == 0 {
		cmd = exec.Command("/bin/sh", append([]string{"-ec", hide, "sh", d.Dir, d.cache, program}, args...)...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	}
	cmd.Env, cmd.Stdout, cmd.Stderr, cmd.Dir = d.env, log, log, d.Dir
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait() // it was killed; Wait only reaps it
	})
	return cmd
}

// reap takes the ended emulators off the process table, which the daemon waits
// for: the first process of a machine for tests may be slow at it.
func (d *Daemon) reap(t testing.TB) {
	t.Helper()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	t.Cleanup(func() { close(stop) })
	go func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			for _, pid := range orphans() {
				unix.Wait4(pid, nil, unix.WNOHANG, nil) // one that runs stays
			}
		}
	}()
}

// orphans returns the emulators that are children of ours, since the daemon does
// not keep those it starts.
func orphans() (pids []int) {
	files, _ := filepath.Glob("/proc/self/task/*/children")
	for _, file := range files {
		b, _ := os.ReadFile(file)
		for _, word := range strings.Fields(string(b)) {
			stat, _ := os.ReadFile("/proc/" + word + "/stat")
			if pid, err := strconv.Atoi(word); err == nil && bytes.Contains(stat, []byte("(qemu-system")) {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// emulators returns the processes of the daemon's machines.
func (d *Daemon) emulators() (pids []int) {
	for _, dir := range []string{"run/libvirt/qemu", "run/libvirt/qemu/run"} {
		files, _ := filepath.Glob(filepath.Join(d.Dir, dir, "*.pid"))
		for _, file := range files {
			b, _ := os.ReadFile(file)
			if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// killDomains ends the machines that a test left running.
func (d *Daemon) killDomains() {
	for _, pid := range d.emulators() {
		unix.Kill(pid, unix.SIGKILL)
	}
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func uuid(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile("/proc/sys/kernel/random/uuid")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}
