package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"consort.dev/consort/application/driver"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/image"
	"consort.dev/consort/internal/qmp"
)

// machine is one of this test: QEMU on a real image, and just enough of its
// monitor and of the guest's agent to be a driver.Machine.
type machine struct {
	id      estate.MachineID
	monitor *qmp.Client
	// nameless leaves out disks' serial numbers, as hypervisors do that have none.
	nameless bool

	mu    sync.Mutex
	agent net.Conn
	in    *json.Decoder
	disks []string
}

// boot starts a machine on a private copy of the small desktop and waits for its
// agent.
func boot(t *testing.T, content image.Entry, id estate.MachineID) *machine {
	t.Helper()
	dir, err := os.MkdirTemp("", "apps") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	disk := filepath.Join(dir, "root.qcow2")
	if out, err := exec.Command("qemu-img", "create", "-q", "-f", "qcow2", "-b", content.Path, "-F", string(content.Format), disk).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img: %v: %s", err, out)
	}
	args := []string{
		"-nodefaults", "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1024", "-display", "none", "-vga", "std",
		"-blockdev", "driver=qcow2,node-name=root,file.driver=file,file.filename=" + disk,
		"-device", "virtio-blk-pci,drive=root,serial=root",
		"-device", "virtio-keyboard-pci", "-device", "virtio-tablet-pci",
		"-device", "virtio-serial-pci", "-chardev", "socket,id=ga,server=on,wait=off,path=" + dir + "/ga",
		"-device", "virtserialport,chardev=ga,name=org.qemu.guest_agent.0",
		"-qmp", "unix:" + dir + "/qmp,server=on,wait=off",
	}
	for i := range 4 {
		args = append(args, "-device", fmt.Sprintf("pcie-root-port,id=port%d,chassis=%d,slot=%d", i, i+1, i+1))
	}
	cmd := exec.Command("nice", append([]string{"-n", "10", "qemu-system-x86_64"}, args...)...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	g := &machine{id: id}
	g.connect(t, dir)
	return g
}

// patience is how long a guest may take to come up or show a window, emulated on
// a loaded host.
const patience = 3 * time.Minute

// drawn waits for the mark of the guest's drawn desktop.
func (g *machine) drawn(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(patience); g.sh(t, "test -e /run/consort/desktop") != 0; <-time.After(300 * time.Millisecond) {
		if time.Now().After(end) {
			g.picture(t, "not-drawn")
			t.Fatalf("no desktop was drawn within %v", patience)
		}
	}
}

func (g *machine) connect(t *testing.T, dir string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var err error
	for g.monitor == nil {
		if g.monitor, err = qmp.Dial(ctx, dir+"/qmp"); err != nil && ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { g.monitor.Close() })
	if g.agent, err = net.Dial("unix", dir+"/ga"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.agent.Close() })
	// The agent takes the request as soon as it is there.
	g.in = json.NewDecoder(g.agent)
	if err := g.ask(ctx, "guest-ping", nil, nil); err != nil {
		t.Fatal(err)
	}
}

// ask sends a request to the guest's agent and waits for the answer.
func (g *machine) ask(ctx context.Context, command string, args, result any) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { g.agent.SetReadDeadline(time.Now()) })
	defer stop()
	request := map[string]any{"execute": command}
	if args != nil {
		request["arguments"] = args
	}
	if err := json.NewEncoder(g.agent).Encode(request); err != nil {
		return err
	}
	var answer struct {
		Return json.RawMessage
		Error  *struct{ Desc string }
	}
	if err := g.in.Decode(&answer); err != nil {
		return fault.Unavailable.Errorf("the guest's agent: %w", err)
	}
	if answer.Error != nil {
		return errors.New(answer.Error.Desc)
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(answer.Return, result)
}

func (g *machine) ID() estate.MachineID { return g.id }

func (g *machine) Run(ctx context.Context, args []string, stdin []byte) (driver.Output, error) {
	var started struct{ PID int }
	err := g.ask(ctx, "guest-exec", map[string]any{"path": args[0], "arg": args[1:], "input-data": stdin, "capture-output": true}, &started)
	if err != nil {
		return driver.Output{}, err
	}
	for {
		var s struct {
			Exited   bool
			ExitCode int
			OutData  []byte `json:"out-data"`
			ErrData  []byte `json:"err-data"`
		}
		if err := g.ask(ctx, "guest-exec-status", map[string]any{"pid": started.PID}, &s); err != nil {
			return driver.Output{}, err
		}
		if s.Exited {
			return driver.Output{Exit: s.ExitCode, Stdout: s.OutData, Stderr: s.ErrData}, nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return driver.Output{}, ctx.Err()
		}
	}
}

func (g *machine) AttachDisk(ctx context.Context, d driver.Disk) error {
	if slices.Contains(g.disks, d.Name) {
		return nil
	}
	err := g.monitor.Execute(ctx, "blockdev-add", map[string]any{
		"driver": "raw", "node-name": d.Name, "read-only": true,
		"file": map[string]any{"driver": "file", "filename": d.Path, "read-only": true},
	}, nil)
	if err != nil {
		return err
	}
	g.disks = append(g.disks, d.Name)
	slices.Sort(g.disks)
	device := map[string]any{
		"driver": "virtio-blk-pci", "id": "dev-" + d.Name, "drive": d.Name, "bus": fmt.Sprintf("port%d", len(g.disks)-1),
	}
	if !g.nameless {
		device["serial"] = d.Name
	}
	return g.monitor.Execute(ctx, "device_add", device, nil)
}

func (g *machine) DetachDisk(ctx context.Context, name string) error {
	i := slices.Index(g.disks, name)
	if i < 0 {
		return nil
	}
	if err := g.monitor.Execute(ctx, "device_del", map[string]any{"id": "dev-" + name}, nil); err != nil {
		return err
	}
	for gone := false; !gone; {
		select {
		case e := <-g.monitor.Events():
			gone = e.Name == "DEVICE_DELETED" && strings.Contains(string(e.Data), `"dev-`+name+`"`)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	g.disks = slices.Delete(g.disks, i, i+1)
	return g.monitor.Execute(ctx, "blockdev-del", map[string]any{"node-name": name}, nil)
}

func (g *machine) Disks(context.Context) ([]string, error) { return slices.Clone(g.disks), nil }

// sh runs a line of shell as the guest's administrator and returns its status.
func (g *machine) sh(t *testing.T, line string) int {
	t.Helper()
	status, _ := g.say(t, line)
	return status
}

// say is sh that returns what was printed as well.
func (g *machine) say(t *testing.T, line string) (int, string) {
	t.Helper()
	out, err := g.Run(t.Context(), []string{"/bin/sh", "-s"}, []byte(line))
	if err != nil {
		t.Fatal(err)
	}
	return out.Exit, string(out.Stdout) + string(out.Stderr)
}

// picture writes what the screen shows to a PNG among the test's artifacts.
func (g *machine) picture(t *testing.T, name string) {
	t.Helper()
	file := filepath.Join(t.ArtifactDir(), name+".png")
	if err := g.monitor.Execute(t.Context(), "screendump", map[string]any{"filename": file, "format": "png"}, nil); err != nil {
		t.Fatal(err)
	}
	t.Logf("picture: %s", file)
}
