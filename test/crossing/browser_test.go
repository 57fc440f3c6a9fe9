package crossing

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"time"
)

// browser is Ana at the portal in Chromium, signed in, on a page that believes
// that everything is allowed; web/test/crossing.mjs takes her orders.
type browser struct {
	*plane
	orders *json.Encoder
	out    *os.File
	in     *bufio.Reader
	texts  []string // that came since the desktop was opened
}

// answerSoon bounds an answer. The script has a shorter bound of its own, and
// says more.
const answerSoon = 2 * time.Minute

func newBrowser(p *plane) *browser {
	p.Helper()
	needs(p.T, "node", "chromium")
	// Looked at, so that a run of before is not taken for one with another script.
	for _, built := range []string{"test/crossing.mjs", "dist/index.html", "node_modules/playwright-core"} {
		if _, err := os.Stat("../../web/" + built); err != nil {
			p.Skip("needs the built pages: make web")
		}
	}
	c := exec.Command("node", "test/crossing.mjs")
	c.Dir = "../../web"
	c.Env = append(os.Environ(), "LINK="+p.link())
	c.Stderr = os.Stderr
	orders, err := c.StdinPipe()
	p.must(err)
	out, in, err := os.Pipe()
	p.must(err)
	c.Stdout = in
	p.must(c.Start())
	in.Close()
	p.Cleanup(func() {
		orders.Close() // it closes its browser then
		dead := time.AfterFunc(10*time.Second, func() { c.Process.Kill() })
		c.Wait()
		dead.Stop()
		out.Close()
	})
	b := &browser{plane: p, orders: json.NewEncoder(orders), out: out, in: bufio.NewReaderSize(out, 64<<10)}
	b.answer("sign in", nil)
	return b
}

// order is one for the script.
type order struct {
	Do      string `json:"do"`
	Path    string `json:"path,omitempty"`
	Drawer  string `json:"drawer,omitempty"`
	Text    string `json:"text,omitempty"`
	Name    string `json:"name,omitempty"`
	Content []byte `json:"content"`
}

// do has the browser do something, and takes its answer.
func (b *browser) do(o order, answer any) {
	b.Helper()
	b.must(b.orders.Encode(o))
	b.answer(o.Do, answer)
}

func (b *browser) answer(to string, into any) {
	b.Helper()
	b.must(b.out.SetReadDeadline(time.Now().Add(answerSoon)))
	line, err := b.in.ReadBytes('\n')
	if err != nil {
		b.Fatalf("wait for the browser's answer to %q: %v", to, err)
	}
	var said struct{ Error string }
	b.must(json.Unmarshal(line, &said))
	if said.Error != "" {
		b.Fatalf("the browser: %s", said.Error)
	}
	if into != nil {
		b.must(json.Unmarshal(line, into))
	}
}

func (b *browser) name() string { return "Chromium" }

// speaks implements viewer: noVNC has the extended clipboard.
func (b *browser) speaks() bool { return true }

// most implements viewer.
func (b *browser) most() int { return 2 << 20 }

func (b *browser) open() {
	b.Helper()
	b.texts = nil
	b.show("Clipboard")
}

// show opens the desktop and a drawer beside it.
func (b *browser) show(drawer string) {
	b.Helper()
	b.do(order{Do: "open", Path: "/desktops/default/" + desk, Drawer: drawer}, nil)
}

func (b *browser) leave() { b.Helper(); b.do(order{Do: "leave"}, nil) }

// give implements viewer.
func (b *browser) give(text string) { b.Helper(); b.do(order{Do: "give", Text: text}, nil) }

// got implements viewer.
func (b *browser) got() []string {
	b.Helper()
	var more struct{ Texts []string }
	b.do(order{Do: "got"}, &more)
	b.texts = append(b.texts, more.Texts...)
	return b.texts
}

// keep implements viewer.
func (b *browser) keep(text string) {
	b.Helper()
	var has struct{ Text string }
	b.do(order{Do: "keep"}, &has)
	if has.Text != text {
		b.Fatalf("the device has %d bytes (%.20q), and %d came (%.20q)", len(has.Text), has.Text, len(text), text)
	}
}
