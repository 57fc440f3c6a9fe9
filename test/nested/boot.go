package nested

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"consort.dev/consort/internal/qmp"
)

// How hosts are started. The models are those under which QEMU 7.2 runs them
// by software: Xen's libvirt driver must know the processor, and KVM needs SVM.
// What guards a processor against guessing wrong costs an emulated one a tenth.
const (
	memory   = 3072 // MiB
	xenModel = "qemu64,+svm,+npt"
	kvmModel = "EPYC,+svm"
	xenWords = "console=com1 com1=115200,8n1 dom0_mem=896M,max:896M dom0_max_vcpus=1 loglvel=warning guest_loglvl=warning spec-ctrl=no"
	kvmWords = "console=ttyS0 quiet net.ifnames=0 mitigations=off"
	domWords = "console=hvc0 quiet net.ifnames=0 mitigations=off"
)

// porterPort is where the porter listens in a host.
const porterPort = 7000

// kind is one of the two hosts that the image is.
type kind string

const (
	xen kind = "xen"
	kvm kind = "kvm"
)

// boot returns what QEMU starts in place of a boot loader.
func (k kind) boot(image string) []string {
	vmlinuz, initrd := filepath.Join(image, "vmlinuz"), filepath.Join(image, "initrd")
	if k == xen {
		return []string{"-cpu", xenModel, "-kernel", filepath.Join(image, "xen"), "-append", xenWords,
			"-initrd", vmlinuz + " " + domWords + "," + initrd}
	}
	return []string{"-cpu", kvmModel, "-kernel", vmlinuz, "-append", kvmWords, "-initrd", initrd}
}

// arguments returns those of QEMU, for a host whose disk lies in dir. A saved
// state fits no others.
func (k kind) arguments(image, dir string) []string {
	return append([]string{"-nodefaults", "-display", "none", "-no-reboot", "-machine", "pc", "-m", fmt.Sprint(memory),
		"-accel", "tcg,thread=multi,tb-size=512",
		"-drive", "file=" + filepath.Join(dir, "disk.qcow2") + ",if=none,id=disk,format=qcow2,cache=unsafe,discard=unmap",
		"-device", "virtio-blk-pci,drive=disk",
		"-netdev", "user,id=net,hostfwd=tcp:127.0.0.1:0-:7000", "-device", "virtio-net-pci,netdev=net,romfile=",
		"-serial", "file:" + filepath.Join(dir, "console"),
		"-qmp", "unix:" + filepath.Join(dir, "qmp") + ",server=on,wait=off"}, k.boot(image)...)
}

// state names the folder of the host's saved state.
func (k kind) state() string {
	sum := sha256.Sum256(fmt.Append(nil, k.arguments("", "")))
	return fmt.Sprintf("saved-%s-%x", k, sum[:4])
}

// process is a running host.
type process struct {
	dir   string // its disk, sockets and console
	cmd   *exec.Cmd
	ended chan struct{}
	port  string // of the porter, on this machine
}

// launch starts a host on an overlay of the disk given; from is where its saved
// state lies, or empty for a host that boots. The host dies with this process.
func launch(ctx context.Context, k kind, image, disk, from, dir string) (*process, error) {
	overlay := filepath.Join(dir, "disk.qcow2")
	if err := run(exec.CommandContext(ctx, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", disk, overlay)); err != nil {
		return nil, err
	}
	args := k.arguments(image, dir)
	if from != "" {
		args = append(args, "-incoming", "exec:cat '"+from+"'")
	}
	p := &process{dir: dir, cmd: exec.Command("qemu-system-x86_64", args...), ended: make(chan struct{})}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.cmd.Wait()
		close(p.ended)
	}()
	if p.port, err = p.findPort(ctx, porterPort); err != nil {
		p.kill()
		return nil, p.explain(err)
	}
	return p, nil
}

func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.ended
}

// explain adds what the host said last.
func (p *process) explain(err error) error {
	for _, name := range []string{"log", "console"} {
		text, _ := os.ReadFile(filepath.Join(p.dir, name))
		if lines := strings.Split(strings.TrimSpace(string(text)), "\n"); lines[0] != "" {
			err = fmt.Errorf("%w\n%s: %s", err, name, strings.Join(lines[max(0, len(lines)-6):], "\n"))
		}
	}
	return err
}

// control connects to QEMU, waiting until it listens.
func (p *process) control(ctx context.Context) (*qmp.Client, error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := qmp.Dial(ctx, filepath.Join(p.dir, "qmp"))
		if err == nil {
			return c, nil
		}
		select {
		case <-tick.C:
		case <-p.ended:
			return nil, errors.New("the nested host ended at once")
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// forwarded is a line of "info usernet": protocol, descriptor, this machine's
// address and port, the guest's.
var forwarded = regexp.MustCompile(`HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s+\S+\s+(\d+)`)

// findPort asks QEMU which port of this machine it took for one of the host's.
func (p *process) findPort(ctx context.Context, port int) (string, error) {
	c, err := p.control(ctx)
	if err != nil {
		return "", err
	}
	defer c.Close()
	text, err := monitor(ctx, c, "info usernet")
	if err != nil {
		return "", err
	}
	for _, m := range forwarded.FindAllStringSubmatch(text, -1) {
		if m[2] == strconv.Itoa(port) {
			return m[1], nil
		}
	}
	return "", fmt.Errorf("QEMU forwards nothing to port %d of the host: %s", port, text)
}

// forward has QEMU forward some port of this machine to one of the host's.
func (p *process) forward(ctx context.Context, port int) (string, error) {
	c, err := p.control(ctx)
	if err != nil {
		return "", err
	}
	text, err := monitor(ctx, c, fmt.Sprintf("hostfwd_add net tcp:127.0.0.1:0-:%d", port))
	c.Close() // QEMU serves one client at a time
	if err != nil || text != "" {
		return "", fmt.Errorf("forward port %d: %s %w", port, text, err)
	}
	return p.findPort(ctx, port)
}

func monitor(ctx context.Context, c *qmp.Client, line string) (text string, err error) {
	err = c.Execute(ctx, "human-monitor-command", map[string]string{"command-line": line}, &text)
	return text, err
}

// save writes the host's memory to a file and ends it. Its disk stays.
func (p *process) save(ctx context.Context, to string) error {
	c, err := p.control(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Execute(ctx, "migrate-set-parameters", map[string]int64{"max-bandwidth": 10 << 30}, nil); err != nil {
		return err
	}
	if err := c.Execute(ctx, "migrate", map[string]string{"uri": "exec:cat > '" + to + "'"}, nil); err != nil {
		return err
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		var state struct {
			Status string `json:"status"`
			Error  string `json:"error-desc"`
		}
		if err := c.Execute(ctx, "query-migrate", nil, &state); err != nil {
			return err
		}
		switch state.Status {
		case "completed":
			// The disk's last writes reach its file when QEMU ends by itself.
			c.Execute(ctx, "quit", nil, nil)
			<-p.ended
			return nil
		case "failed", "cancelled":
			return errors.New("the host's state was not saved: " + state.Error)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
