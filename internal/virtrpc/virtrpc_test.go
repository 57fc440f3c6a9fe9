package virtrpc

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"consort.dev/consort/fault"
	"consort.dev/consort/internal/virtrpc/virtrpctest"
)

// The double is the vendor's own fake driver, in a real daemon.
const double = "test:///default"

const someUUID = "0c9e3c54-1111-4222-8333-444455556666"

const someXML = `<domain type='test'><name>one</name><uuid>` + someUUID + `</uuid><memory unit='MiB'>64</memory><vcpu>1</vcpu><os><type>hvm</type></os></domain>`

func open(t *testing.T, d *virtrpctest.Daemon, uri string) *Client {
	t.Helper()
	dial, err := Endpoint("unix://" + d.Socket)
	if err != nil {
		t.Fatal(err)
	}
	c := New(dial, uri)
	t.Cleanup(func() { c.Close() })
	return c
}

func state(t *testing.T, c *Client, want State) {
	t.Helper()
	if got, _, err := c.State(t.Context(), someUUID); err != nil || got != want {
		t.Errorf("state = %v, %v; want %v", got, err, want)
	}
}

func TestADomainsLife(t *testing.T) {
	c := open(t, virtrpctest.Start(t), double)
	ctx := t.Context()
	if _, _, err := c.Version(ctx); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Node(ctx); err != nil || n.CPUs < 1 || n.Memory < 1<<20 {
		t.Errorf("node = %+v, %v", n, err)
	}
	if err := c.Define(ctx, someXML); err != nil {
		t.Fatal(err)
	}
	state(t, c, ShutOff)
	if err := errors.Join(c.Create(ctx, someUUID)); err != nil {
		t.Fatal(err)
	}
	state(t, c, Running)
	if i, err := c.Info(ctx, someUUID); err != nil || i.Memory != 64<<20 || i.CPUs != 1 {
		t.Errorf("info = %+v, %v", i, err)
	}
	if s, err := c.Stats(ctx, someUUID); err != nil || s["state.state"] != int64(Running) {
		t.Errorf("stats = %v, %v", s, err)
	}
	all, err := c.Domains(ctx)
	if err != nil || len(all) != 2 { // the double has one of its own
		t.Errorf("domains = %v, %v", all, err)
	}
	if x, err := c.XML(ctx, someUUID, true); err != nil || !strings.Contains(x, someUUID) {
		t.Errorf("XML = %s, %v", x, err)
	}
	if err := c.Destroy(ctx, someUUID); err != nil {
		t.Fatal(err)
	}
	state(t, c, ShutOff)
	if err := c.UndefineWith(ctx, someUUID, 0); err != nil {
		t.Fatal(err)
	}
	_, _, err = c.State(ctx, someUUID)
	if !errors.Is(err, fault.NotFound) {
		t.Errorf("state of nothing = %v, want %v", err, fault.NotFound)
	}
}

func TestMetadataIsKept(t *testing.T) {
	c := open(t, virtrpctest.Start(t), double)
	ctx, space := t.Context(), "urn:test"
	if err := c.Define(ctx, someXML); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Metadata(ctx, someUUID, space, Config); !errors.Is(err, fault.NotFound) {
		t.Errorf("metadata of a new domain = %v, want %v", err, fault.NotFound)
	}
	if err := c.SetMetadata(ctx, someUUID, "<a>b &amp; c</a>", "p", space, Config); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Metadata(ctx, someUUID, space, Config); err != nil || !strings.Contains(got, "b &amp; c") {
		t.Errorf("metadata = %q, %v", got, err)
	}
	if err := c.SetMetadata(ctx, someUUID, "", "p", space, Config); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Metadata(ctx, someUUID, space, Config); !errors.Is(err, fault.NotFound) {
		t.Errorf("removed metadata = %v, want %v", err, fault.NotFound)
	}
}

func TestARefusalKeepsTheVendorsWords(t *testing.T) {
	c := open(t, virtrpctest.Start(t), double)
	for name, refused := range map[string]struct {
		err          error
		kind         fault.Kind
		code, domain int
	}{
		"unknown": {c.Destroy(t.Context(), someUUID), fault.NotFound, codeNoDomain, 12},
		"bad XML": {c.Define(t.Context(), "<domain"), fault.Invalid, codeXMLDetail, 20},
	} {
		var e *Error
		if !errors.As(refused.err, &e) || e.Code != refused.code || e.Domain != refused.domain || e.Text == "" {
			t.Errorf("%s: %+v, want code %d of part %d", name, e, refused.code, refused.domain)
		}
		if got := fault.KindOf(refused.err); got != refused.kind {
			t.Errorf("%s: %v is %v, want %v", name, refused.err, got, refused.kind)
		}
	}
}

func TestItConnectsAgain(t *testing.T) {
	d := virtrpctest.Start(t)
	c := open(t, d, double)
	if _, err := c.Node(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.Restart(t)
	if _, err := c.Node(t.Context()); err != nil {
		t.Errorf("a question after a restart: %v", err)
	}
	d.Kill()
	if _, err := c.Node(t.Context()); !errors.Is(err, fault.Unavailable) {
		t.Errorf("a question to nobody = %v, want %v", err, fault.Unavailable)
	}
	if err := c.Define(t.Context(), someXML); !errors.Is(err, fault.Unavailable) {
		t.Errorf("an effect ordered of nobody = %v, want %v", err, fault.Unavailable)
	}
	d.Restart(t)
	if err := c.Define(t.Context(), someXML); err != nil {
		t.Errorf("an effect after a restart: %v", err)
	}
}

// A reply that does not come leaves a question without answer and an effect
// unknown, and neither waits longer than its context.
func TestALostReply(t *testing.T) {
	d := virtrpctest.Start(t)
	c := open(t, d, double)
	if err := c.Define(t.Context(), someXML); err != nil {
		t.Fatal(err)
	}
	resume := d.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := c.Node(ctx)
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, fault.OutcomeUnknown) {
		t.Errorf("a question = %v, want its deadline", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := c.Create(ctx, someUUID); !errors.Is(err, fault.OutcomeUnknown) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("an effect = %v, want %v and its deadline", err, fault.OutcomeUnknown)
	}
	resume()
	for end := time.Now().Add(10 * time.Second); ; { // the daemon's workers do not keep the order of calls
		got, _, err := c.State(t.Context(), someUUID)
		if err == nil && got == Running {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("state = %v, %v; want %v: the effect was ordered", got, err, Running)
		}
	}
}

// cutter is a relay whose connections can be cut.
type cutter struct {
	to    string
	sent  chan struct{} // holds something if something was sent
	mu    sync.Mutex
	conns []net.Conn
}

func (k *cutter) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	far, err := d.DialContext(ctx, "unix", k.to)
	if err != nil {
		return nil, err
	}
	near, mine := net.Pipe()
	go io.Copy(io.MultiWriter(k, far), mine)
	go io.Copy(mine, far)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.conns = append(k.conns, far, mine)
	return near, nil
}

// Write sees what is sent, before the daemon can answer it.
func (k *cutter) Write(p []byte) (int, error) {
	select {
	case k.sent <- struct{}{}:
	default:
	}
	return len(p), nil
}

// carries waits until something is sent, or was since it was called last.
func (k *cutter) carries(t *testing.T) {
	t.Helper()
	select {
	case <-k.sent:
	case <-time.After(10 * time.Second):
		t.Fatal("nothing was sent")
	}
}

func (k *cutter) cut() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range k.conns {
		c.Close()
	}
	k.conns = nil
}

func TestACutDuringAnEffectIsUnknown(t *testing.T) {
	d := virtrpctest.Start(t)
	k := &cutter{to: d.Socket, sent: make(chan struct{}, 1)}
	c := New(k.dial, double)
	defer c.Close()
	if err := c.Define(t.Context(), someXML); err != nil {
		t.Fatal(err)
	}
	k.carries(t) // the definition
	resume := d.Pause()
	done := make(chan error, 1)
	go func() { done <- c.Create(t.Context(), someUUID) }()
	k.carries(t)
	k.cut()
	err := <-done
	resume()
	if !errors.Is(err, fault.OutcomeUnknown) {
		t.Errorf("an effect whose connection was cut = %v, want %v", err, fault.OutcomeUnknown)
	}
	if _, err := c.Node(t.Context()); err != nil {
		t.Errorf("the next call: %v", err)
	}
}

func TestASilentDaemonIsGivenUp(t *testing.T) {
	d := virtrpctest.Start(t)
	dial, err := Endpoint("unix://" + d.Socket)
	if err != nil {
		t.Fatal(err)
	}
	l, err := New(dial, double).open(t.Context(), func(*wire) {})
	if err != nil {
		t.Fatal(err)
	}
	defer l.wire.Close()
	go l.wire.keepAlive(20*time.Millisecond, 400*time.Millisecond)
	select {
	case <-l.wire.gone:
		t.Fatal("a daemon that answers was given up")
	case <-time.After(1500 * time.Millisecond): // the daemon says nothing but what is asked for
	}
	resume := d.Pause()
	defer resume()
	select {
	case <-l.wire.gone:
	case <-time.After(10 * time.Second):
		t.Error("a daemon that answers nothing was not given up")
	}
}

func TestWatchTells(t *testing.T) {
	d := virtrpctest.Start(t)
	c := open(t, d, double)
	ctx, cancel := context.WithCancel(t.Context())
	told, done := make(chan string, 100), make(chan error, 1)
	go func() { done <- c.Watch(ctx, func(uuid string) { told <- uuid }) }()
	tells(t, c, told)
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Watch = %v, want nil", err)
	}
}

// tells waits until a watch tells of a change. The double's domains live as long
// as somebody is connected: it is defined again until the watch is there to see
// it.
func tells(t *testing.T, c *Client, told <-chan string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		if err := c.Define(t.Context(), someXML); err != nil {
			t.Fatal(err)
		}
		select {
		case uuid := <-told:
			if uuid != someUUID {
				t.Errorf("told of %s, want %s", uuid, someUUID)
			}
			return
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatal("nobody told of a change")
		}
	}
}

func TestWatchEndsWithTheDaemon(t *testing.T) {
	d := virtrpctest.Start(t)
	c := open(t, d, double)
	told, done := make(chan string, 100), make(chan error, 1)
	go func() { done <- c.Watch(t.Context(), func(uuid string) { told <- uuid }) }()
	tells(t, c, told)
	d.Kill()
	if err := <-done; !errors.Is(err, fault.Unavailable) {
		t.Errorf("Watch = %v, want %v", err, fault.Unavailable)
	}
}

func TestEndpoint(t *testing.T) {
	for text, good := range map[string]bool{
		"unix:///run/libvirt/libvirt-sock": true, "tcp://10.0.0.1:16509": true, "tcp://[::1]:1": true,
		"": false, "unix://relative": false, "tcp://host": false, "ssh://host:22": false, "tcp://host:1/x": false,
	} {
		if _, err := Endpoint(text); (err == nil) != good {
			t.Errorf("Endpoint(%q) = %v", text, err)
		}
	}
}

// The console of a guest is a stream in both directions: the guest is a boot
// sector that echoes what its serial port reads.
func TestAConsoleIsHeardAndTalkedTo(t *testing.T) {
	d := virtrpctest.Start(t)
	c := open(t, d, d.URI)
	// mov dx,3fd; in al,dx; test al,1; jz -5; mov dx,3f8; in al,dx; inc al; out dx,al; jmp
	code := []byte{0xba, 0xfd, 0x03, 0xec, 0xa8, 0x01, 0x74, 0xf8, 0xba, 0xf8, 0x03, 0xec, 0xfe, 0xc0, 0xee, 0xeb, 0xef}
	disk := make([]byte, 1<<20)
	copy(disk, code)
	disk[510], disk[511] = 0x55, 0xaa
	path := d.Dir + "/echo.img"
	if err := os.WriteFile(path, disk, 0o666); err != nil {
		t.Fatal(err)
	}
	xml := `<domain type='qemu'><name>echo</name><uuid>` + someUUID + `</uuid><memory unit='MiB'>16</memory><vcpu>1</vcpu>
	<os><type arch='x86_64' machine='pc'>hvm</type></os><devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
	<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='` + path + `'/><target dev='vda' bus='virtio'/><readonly/></disk>
	<serial type='pty'/><memballoon model='none'/></devices></domain>`
	ctx := t.Context()
	if err := c.Define(ctx, xml); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Console(ctx, someUUID, ""); !errors.Is(err, fault.Conflict) {
		t.Errorf("console of a domain that is off = %v, want %v", err, fault.Conflict)
	}
	if err := c.Create(ctx, someUUID); err != nil {
		t.Fatal(err)
	}
	con, err := c.Console(ctx, someUUID, "")
	if err != nil {
		t.Fatal(err)
	}
	defer con.Close()
	heard := make(chan byte, 1024)
	go func() {
		b := make([]byte, 64)
		for {
			n, err := con.Read(b)
			for _, c := range b[:n] {
				heard <- c
			}
			if err != nil {
				close(heard)
				return
			}
		}
	}()
	deadline := time.After(30 * time.Second)
	for answered := false; !answered; {
		if _, err := con.Write([]byte("G")); err != nil {
			t.Fatal(err)
		}
		select {
		case b := <-heard:
			answered = b == 'H' // what the firmware says comes before
		case <-time.After(100 * time.Millisecond):
		case <-deadline:
			t.Fatal("the guest does not answer")
		}
	}
	if err := c.Destroy(ctx, someUUID); err != nil {
		t.Fatal(err)
	}
	for {
		select {
		case _, open := <-heard:
			if !open {
				return
			}
		case <-deadline:
			t.Fatal("the stream does not end with its domain")
		}
	}
}

// FuzzPackets reads packets that a broken daemon might send.
func FuzzPackets(f *testing.F) {
	f.Add(head{program: programDomains, procedure: procLifecycle, kind: typeMessage}.packet(make([]byte, 40)))
	f.Add(head{program: programDomains, kind: typeReply, status: statusError}.packet([]byte{0, 0, 0, 42, 0, 0, 0, 12}))
	f.Fuzz(func(t *testing.T, data []byte) {
		near, far := net.Pipe()
		go func() {
			far.Write(data)
			far.Close()
		}()
		w := newWire(near)
		w.event = func(string) {}
		n, err := io.Copy(io.Discard, w)
		if n > int64(len(data)) {
			t.Errorf("%d bytes of %d, %v", n, len(data), err)
		}
	})
}
