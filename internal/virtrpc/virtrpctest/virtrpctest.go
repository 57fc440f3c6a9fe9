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
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Daemon is a daemon that ends with its test, and its domains with it.
type Daemon struct {
	Dir    string // its files; short, for sockets
	Socket string
	Port   int // of TCP on the loopback
	UID    int // whose it is; other than ours where we are root
	env    []string
	cmd    *exec.Cmd
}

// startLimit is how long a daemon may take to answer on a loaded machine: it
// looks at every emulator first.
const startLimit = time.Minute

// Start starts a daemon, or skips the test where there is none to start.
func Start(t testing.TB) *Daemon {
	t.Helper()
	for _, p := range []string{"/usr/sbin/libvirtd", "/usr/sbin/virtlogd"} {
		if _, err := os.Stat(p); err != nil {
			t.Skipf("%s is not installed (Debian: libvirt-daemon)", p)
		}
	}
	dir, err := os.MkdirTemp("", "virt")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d := &Daemon{Dir: dir, Socket: filepath.Join(dir, "run/libvirt/libvirt-sock"), UID: os.Geteuid(), Port: freePort(t)}
	if d.UID == 0 {
		nobody, err := user.Lookup("nobody")
		if err != nil {
			t.Fatal(err)
		}
		d.UID, _ = strconv.Atoi(nobody.Uid)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"cfg/libvirt", "data", "cache", "run/libvirt"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"cfg/libvirt/libvirtd.conf": fmt.Sprintf("host_uuid = %q\nlisten_tls = 0\nlisten_tcp = 1\nlisten_addr = \"127.0.0.1\"\ntcp_port = \"%d\"\nauth_tcp = \"none\"\n", uuid(t), d.Port),
		// The sandbox of QEMU denies what its own users' namespace needs here.
		"cfg/libvirt/qemu.conf": "security_driver = \"none\"\nseccomp_sandbox = 0\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, sub := range []string{"cfg", "data", "cache", "run"} {
		d.env = append(d.env, "XDG_"+map[string]string{"cfg": "CONFIG_HOME", "data": "DATA_HOME", "cache": "CACHE_HOME", "run": "RUNTIME_DIR"}[sub]+"="+filepath.Join(dir, sub))
		if err := filepath.WalkDir(filepath.Join(dir, sub), func(path string, _ os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return os.Chown(path, d.UID, -1)
		}); err != nil {
			t.Fatal(err)
		}
	}
	d.env = append(d.env, "HOME="+dir, "PATH="+os.Getenv("PATH"))
	log := d.spawn(t, "/usr/sbin/virtlogd")
	_ = log
	t.Cleanup(d.killDomains)
	d.Restart(t)
	return d
}

// Restart ends the daemon, if it runs, and starts it again; domains run on.
func (d *Daemon) Restart(t testing.TB) {
	t.Helper()
	d.Kill()
	os.Remove(d.Socket)
	d.cmd = d.spawn(t, "/usr/sbin/libvirtd", "--listen", "-f", filepath.Join(d.Dir, "cfg/libvirt/libvirtd.conf"))
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
	cmd.Env, cmd.Stdout, cmd.Stderr, cmd.Dir = d.env, log, log, d.Dir
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(d.UID), Gid: uint32(d.UID)}}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait() // it was killed; Wait only reaps it
	})
	return cmd
}

// killDomains ends every process that has the daemon's folder on its command line.
func (d *Daemon) killDomains() {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range lines {
		b, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(b, []byte(d.Dir+"/")) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil && pid != os.Getpid() {
			syscall.Kill(pid, syscall.SIGKILL)
		}
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
