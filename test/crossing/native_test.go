package crossing

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/internal/rfb"
	"consort.dev/consort/internal/splice"
	"consort.dev/consort/test/xserver"
)

// native is a viewer of others on an X server of its own, behind a port that
// leads to the gateway as that of 'consort connect --forward' does.
type native struct {
	*plane
	program  string
	extended bool
	command  func(dir string, port int, secret string) ([]string, error)

	display string
	viewer  *exec.Cmd
	seen    []string        // texts that were on the X server's clipboard, and not put there by give
	mine    map[string]bool // what give put there; the desktop copies none of it
}

// own is on the clipboard before a viewer comes.
const own = "was here before"

// tiger is TigerVNC's viewer.
func tiger(p *plane) *native {
	return newNative(p, "xtigervncviewer", true, func(dir string, port int, secret string) ([]string, error) {
		file := filepath.Join(dir, "password")
		err := os.WriteFile(file, rfb.PasswordFile(secret), 0o600)
		return []string{
			"-passwd", file, "-MaxCutText=16777216", "-SetPrimary=0", "-SendPrimary=0",
			"-AlertOnFatalError=0", "-ReconnectOnError=0", "-FullScreen=0", "127.0.0.1::" + strconv.Itoa(port),
		}, err
	})
}

func newNative(p *plane, program string, extended bool, command func(string, int, string) ([]string, error)) *native {
	p.Helper()
	needs(p.T, program, "Xvfb", "xclip", "xdotool")
	return &native{plane: p, program: program, extended: extended, command: command, display: xserver.Start(p, "800x600")}
}

func (n *native) name() string { return n.program }

// speaks implements viewer.
func (n *native) speaks() bool { return n.extended }

// most implements viewer: X clipboards go in one piece up to here, and viewers
// differ in what they make of longer ones.
func (n *native) most() int { return 200 << 10 }

// x is a command on the viewer's X server.
func (n *native) x(name string, args ...string) *exec.Cmd {
	c := exec.CommandContext(n.Context(), name, args...)
	c.Env = append(os.Environ(), n.display)
	return c
}

func (n *native) open() {
	n.Helper()
	n.seen, n.mine = nil, map[string]bool{}
	n.set(own)
	s, err := n.client.Connect(n.Context(), "default", desk, "")
	n.must(err)
	var t *api.Ticket
	n.until("there is a ticket", func() bool {
		t, err = n.client.Ticket(n.Context(), "default", s.Metadata.Name, true)
		return err == nil
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	n.must(err)
	go func() {
		defer l.Close()
		conn, err := l.Accept()
		if err != nil {
			return
		}
		tunnel, err := n.client.Tunnel(n.Context(), t.Ticket)
		if err != nil {
			conn.Close()
			return
		}
		splice.Join(n.Context(), conn, tunnel)
	}()
	dir := n.TempDir()
	args, err := n.command(dir, l.Addr().(*net.TCPAddr).Port, t.Secret)
	n.must(err)
	n.viewer = exec.Command(n.program, args...)
	n.viewer.Env = append(os.Environ(), n.display, "HOME="+dir, "XDG_RUNTIME_DIR="+dir)
	n.viewer.Stderr = os.Stderr
	n.must(n.viewer.Start())
	n.Cleanup(n.leave)
	// A key that arrives says that it is there and has the keyboard.
	began := n.desktop.pressed()
	n.until(n.program+" passes keys on", func() bool {
		n.press()
		time.Sleep(100 * time.Millisecond)
		return n.desktop.pressed() > began
	})
}

func (n *native) leave() {
	if n.viewer == nil {
		return
	}
	n.viewer.Process.Kill()
	n.viewer.Wait()
	n.viewer = nil
}

// press types a letter into the window under the pointer, which has the keyboard:
// there is no window manager to give it to another.
func (n *native) press() {
	_ = n.x("xdotool", "mousemove", "120", "120", "mousemove", "121", "121", "click", "1", "key", "a").Run() // open looks whether it came
}

func (n *native) set(text string) {
	n.Helper()
	c := n.x("xclip", "-selection", "clipboard", "-in")
	c.Stdin = strings.NewReader(text)
	n.must(c.Run()) // another process of it stays, until somebody else has the clipboard
	n.until("the clipboard is ours", func() bool { return n.read() == text })
}

// read returns the text on the clipboard; nothing where nobody has it.
func (n *native) read() string {
	out, err := n.x("timeout", "10", "xclip", "-selection", "clipboard", "-out", "-target", "UTF8_STRING").Output()
	if err != nil {
		return ""
	}
	return string(out)
}

// give implements viewer.
func (n *native) give(text string) {
	n.Helper()
	n.note()
	n.mine[text] = true
	n.set(text)
}

// got implements viewer.
func (n *native) got() []string {
	n.note()
	return n.seen
}

// keep implements viewer: its clipboard is where texts come.
func (n *native) keep(string) {}

// note looks at the clipboard.
func (n *native) note() {
	text := n.read()
	if text == "" || text == own || n.mine[text] {
		return // nobody has it, or what we put there
	}
	if len(n.seen) == 0 || n.seen[len(n.seen)-1] != text {
		n.seen = append(n.seen, text)
	}
}
