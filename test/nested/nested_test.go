package nested

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestHosts shows that each host is what it says, and that a test gets in.
func TestHosts(t *testing.T) {
	if os.Getenv("CONSORT_HYPERVISORS") == "" {
		t.Skip("boots a nested host: make test-hypervisors")
	}
	for _, c := range []struct {
		name  string
		begin func(testing.TB) *Host
		uri   string
		shows []string
		want  string
	}{
		{"Xen", Xen, "xen:///system", []string{"cat", "/proc/xen/capabilities"}, "control_d"},
		{"KVM", KVM, "qemu:///system", []string{"ls", "/dev/kvm"}, "/dev/kvm"},
	} {
		t.Run(c.name, func(t *testing.T) {
			began := time.Now()
			h := c.begin(t)
			t.Logf("taken up in %v", time.Since(began))
			if got := h.Must(t, c.shows...); !strings.Contains(got, c.want) {
				t.Errorf("%q prints %q, want %q", c.shows, got, c.want)
			}
			if got := h.Must(t, "virsh", "-c", c.uri, "version"); !strings.Contains(got, "Running hypervisor") {
				t.Errorf("virsh version prints %q", got)
			}
			filesGoIn(t, h)
			connectionsGoIn(t, h)
		})
	}
}

func filesGoIn(t *testing.T, h *Host) {
	t.Helper()
	want := make([]byte, 3<<20)
	copy(want[1<<20:], "in the middle")
	from := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(from, want, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := h.Put(t.Context(), from, "/srv/file", 0o640); err != nil {
		t.Fatal(err)
	}
	if got := h.Must(t, "cat", "/srv/file"); got != string(want) {
		t.Errorf("a file of %d bytes arrives with %d, or changed", len(want), len(got))
	}
	if got := h.Must(t, "stat", "-c", "%a", "/srv/file"); got != "640\n" {
		t.Errorf("its mode is %q, want 640", got)
	}
	out, err := h.Run(t.Context(), []byte("input"), "sh", "-c", "cat; exit 3")
	if err != nil || out.Exit != 3 || string(out.Stdout) != "input" {
		t.Errorf("Run = %+v, %v; want the input and exit 3", out, err)
	}
}

func connectionsGoIn(t *testing.T, h *Host) {
	t.Helper()
	conn, err := h.Dial(t.Context(), "tcp", "127.0.0.1:7000")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, `{"Run":["echo","again"]}`+"\n"); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(conn); err != nil || !bytes.Contains(got, []byte("YWdhaW4K")) {
		t.Errorf("the porter behind the porter says %q, %v", got, err)
	}
	if _, err := h.Dial(t.Context(), "unix", "/nowhere"); err == nil {
		t.Error("a socket that is not there is reached")
	}
}
