package hyperv

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf16"
)

const (
	fakeUser     = `HOST\operator`
	fakePassword = "pass & <word>"
)

// fakeService is a WS-Management endpoint of our own, made after MS-WSMV and
// never compared with a Windows host. What it runs as PowerShell is a model.
type fakeService struct {
	server *httptest.Server
	model  *model

	// How the service behaves; set before it is used.
	shellLimit   int           // 30 when zero, as on Windows
	commandLimit int           // commands that a shell may have had; 1500 when zero
	patience     time.Duration // how long a Receive waits for output; 20 ms when zero
	piece        int           // bytes of output in one answer; 256 KiB when zero
	ntlm         *handshakes   // asks for NTLM instead of Basic
	meddle       func(action string, w http.ResponseWriter, serve func()) bool

	mu     sync.Mutex
	shells map[string]*fakeShell
	next   int
	seen   map[string]int // messages by the last word of their action
}

type fakeShell struct {
	commands map[string]*fakeCommand
	had      int
}

type fakeCommand struct {
	input []byte
	kill  context.CancelFunc
	ended chan struct{}
	out   []byte
	exit  int
}

func newFakeService(t *testing.T, m *model) *fakeService {
	f := &fakeService{model: m, shells: map[string]*fakeShell{}, seen: map[string]int{}}
	f.server = httptest.NewTLSServer(http.HandlerFunc(f.serve))
	t.Cleanup(f.close)
	return f
}

// close ends the service and waits for what ran there.
func (f *fakeService) close() {
	f.server.CloseClientConnections()
	f.server.Close()
	f.mu.Lock()
	var all []*fakeCommand
	for id := range f.shells {
		all = append(all, f.dropShell(id)...)
	}
	f.mu.Unlock()
	for _, c := range all {
		<-c.ended
	}
}

// finish waits until all that runs there has come to its end.
func (f *fakeService) finish() {
	f.mu.Lock()
	var all []*fakeCommand
	for _, s := range f.shells {
		for _, c := range s.commands {
			if c.kill != nil {
				all = append(all, c)
			}
		}
	}
	f.mu.Unlock()
	for _, c := range all {
		<-c.ended
	}
}

// asked is what a client sends.
type asked struct {
	Header struct {
		Action    string `xml:"Action"`
		Selectors []struct {
			Name string `xml:"Name,attr"`
			Text string `xml:",chardata"`
		} `xml:"SelectorSet>Selector"`
	} `xml:"Header"`
	Body struct {
		Command string `xml:"CommandLine>Command"`
		Send    struct {
			ID   string `xml:"CommandId,attr"`
			End  bool   `xml:"End,attr"`
			Text string `xml:",chardata"`
		} `xml:"Send>Stream"`
		Receive struct {
			ID string `xml:"CommandId,attr"`
		} `xml:"Receive>DesiredStream"`
		Signal struct {
			ID string `xml:"CommandId,attr"`
		} `xml:"Signal"`
	} `xml:"Body"`
}

func (f *fakeService) serve(w http.ResponseWriter, r *http.Request) {
	if f.ntlm != nil {
		if !f.ntlm.admits(w, r) {
			return
		}
	} else if user, password, _ := r.BasicAuth(); user != fakeUser || password != fakePassword {
		w.Header().Set("WWW-Authenticate", `Basic realm="WSMAN"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	data, err := io.ReadAll(r.Body)
	if err != nil || len(data) > maxEnvelope || r.URL.Path != "/wsman" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	var a asked
	if err := xml.Unmarshal(data, &a); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	action := a.Header.Action[strings.LastIndex(a.Header.Action, "/")+1:]
	f.mu.Lock()
	f.seen[action]++
	f.mu.Unlock()
	answer := func() {
		body, code := f.do(r.Context(), action, a)
		if code != 0 {
			w.WriteHeader(http.StatusInternalServerError)
			body = fmt.Sprintf(`<s:Fault><s:Code><s:Value>s:Receiver</s:Value></s:Code><s:Reason><s:Text xml:lang="en-US">%s</s:Text></s:Reason><s:Detail><f:WSManFault xmlns:f="http://schemas.microsoft.com/wbem/wsman/1/wsmanfault" Code="%d" Machine="fake"><f:Message>%s</f:Message></f:WSManFault></s:Detail></s:Fault>`, body, code, body)
		}
		fmt.Fprintf(w, `<s:Envelope xml:lang="en-US" xmlns:s="http://www.w3.org/2003/05/soap-envelope" xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing" xmlns:x="http://schemas.xmlsoap.org/ws/2004/09/transfer" xmlns:w="http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd" xmlns:rsp="http://schemas.microsoft.com/wbem/wsman/1/windows/shell"><s:Header><a:Action>%sResponse</a:Action></s:Header><s:Body>%s</s:Body></s:Envelope>`, a.Header.Action, body)
	}
	if f.meddle == nil || !f.meddle(action, w, answer) {
		answer()
	}
}

// do answers one message: with a body, or with the text and code of a fault.
func (f *fakeService) do(ctx context.Context, action string, a asked) (string, uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if action == "Create" {
		return f.create()
	}
	shell := ""
	for _, s := range a.Header.Selectors {
		if s.Name == "ShellId" {
			shell = s.Text
		}
	}
	s := f.shells[shell]
	if s == nil {
		return "the shell was not found on the server", faultNoShell
	}
	switch action {
	case "Delete":
		f.dropShell(shell)
		return "", 0
	case "Command":
		return f.command(s, a.Body.Command)
	case "Send":
		c := s.commands[a.Body.Send.ID]
		piece, err := base64.StdEncoding.DecodeString(a.Body.Send.Text)
		if c == nil || err != nil || c.kill != nil {
			return "no command takes this input", 2150858770
		}
		c.input = append(c.input, piece...)
		if a.Body.Send.End {
			f.begin(c)
		}
		return `<rsp:SendResponse/>`, 0
	case "Signal":
		if c := s.commands[a.Body.Signal.ID]; c != nil && c.kill != nil {
			c.kill()
		}
		return `<rsp:SignalResponse/>`, 0
	case "Receive":
		return f.receive(ctx, s, a.Body.Receive.ID)
	}
	return "no such action", 2150858752
}

func (f *fakeService) create() (string, uint32) {
	limit := 30
	if f.shellLimit > 0 {
		limit = f.shellLimit
	}
	if len(f.shells) >= limit {
		return "This user is allowed a maximum number of concurrent shells, which has been exceeded.", faultShells
	}
	f.next++
	id := fmt.Sprintf("67A74734-DD32-4F10-89DE-%012d", f.next)
	f.shells[id] = &fakeShell{commands: map[string]*fakeCommand{}}
	return `<x:ResourceCreated><a:ReferenceParameters><w:SelectorSet><w:Selector Name="ShellId">` + id +
		`</w:Selector></w:SelectorSet></a:ReferenceParameters></x:ResourceCreated><rsp:Shell><rsp:ShellId>` + id + `</rsp:ShellId></rsp:Shell>`, 0
}

// dropShell ends the shell and what runs in it. Callers hold mu.
func (f *fakeService) dropShell(id string) (running []*fakeCommand) {
	for _, c := range f.shells[id].commands {
		if c.kill != nil {
			c.kill()
			running = append(running, c)
		}
	}
	delete(f.shells, id)
	return running
}

func (f *fakeService) command(s *fakeShell, line string) (string, uint32) {
	limit := 1500
	if f.commandLimit > 0 {
		limit = f.commandLimit
	}
	if s.had++; s.had > limit {
		return "This user is allowed a maximum number of concurrent operations, which has been exceeded.", faultOperations
	}
	if len(line) > 8191 {
		return "The filename or extension is too long.", 2147942606
	}
	words := strings.Fields(line)
	b, err := base64.StdEncoding.DecodeString(words[len(words)-1])
	var units []uint16
	for i := 0; i+1 < len(b); i += 2 {
		units = append(units, uint16(b[i])|uint16(b[i+1])<<8)
	}
	if err != nil || words[0] != "powershell.exe" || string(utf16.Decode(units)) != bootstrap {
		return "the model knows no other command than the bootstrap", 2147942402
	}
	f.next++
	id := fmt.Sprintf("1A6DEE6B-EC68-4DD6-87E9-%012d", f.next)
	s.commands[id] = &fakeCommand{ended: make(chan struct{})}
	return `<rsp:CommandResponse><rsp:CommandId>` + id + `</rsp:CommandId></rsp:CommandResponse>`, 0
}

// begin runs the command, whose input has come to its end. Callers hold mu.
func (f *fakeService) begin(c *fakeCommand) {
	ctx, kill := context.WithCancel(context.Background())
	c.kill = kill
	go func() {
		defer close(c.ended)
		c.out, c.exit = f.model.powershell(ctx, c.input)
	}()
}

func (f *fakeService) receive(ctx context.Context, s *fakeShell, id string) (string, uint32) {
	c := s.commands[id]
	if c == nil || c.kill == nil {
		return "no such command", 2150858770
	}
	wait := 20 * time.Millisecond
	if f.patience > 0 {
		wait = f.patience
	}
	f.mu.Unlock()
	t := time.NewTimer(wait)
	defer t.Stop()
	done := false
	select {
	case <-c.ended:
		done = true
	case <-t.C:
	case <-ctx.Done():
	}
	f.mu.Lock()
	if !done {
		return "The WS-Management service cannot complete the operation within the time specified in OperationTimeout.", faultTimedOut
	}
	n := 256 << 10 // within the envelope
	if f.piece > 0 {
		n = f.piece
	}
	n = min(n, len(c.out))
	var piece []byte
	piece, c.out = c.out[:n], c.out[n:]
	state, exit := "Running", ""
	if len(c.out) == 0 {
		state, exit = "Done", fmt.Sprintf("<rsp:ExitCode>%d</rsp:ExitCode>", c.exit)
		delete(s.commands, id)
	}
	return fmt.Sprintf(`<rsp:ReceiveResponse><rsp:Stream Name="stdout" CommandId="%s">%s</rsp:Stream><rsp:Stream Name="stderr" CommandId="%s" End="true"></rsp:Stream><rsp:CommandState CommandId="%s" State="%s/CommandState/%s">%s</rsp:CommandState></rsp:ReceiveResponse>`,
		id, base64.StdEncoding.EncodeToString(piece), id, id, shellSpace, state, exit), 0
}

// drop breaks the connection off instead of answering.
func drop(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	conn.Close()
}

// powershell does what the bootstrap does with its input.
func (m *model) powershell(ctx context.Context, input []byte) (out []byte, exit int) {
	var lines [][]byte
	for line := range bytes.FieldsSeq(input) {
		b, err := base64.StdEncoding.DecodeString(string(line))
		if err != nil {
			return nil, 1
		}
		lines = append(lines, b)
	}
	if len(lines) < 2 || len(lines) > 3 {
		return nil, 1
	}
	var payload []byte
	if len(lines) == 3 {
		payload = lines[2]
	}
	var version int
	var verb string
	first, _, _ := strings.Cut(string(lines[0]), "\n")
	if _, err := fmt.Sscanf(first, "# consort hyper-v protocol %d: %s", &version, &verb); err != nil {
		return nil, 1
	}
	a, reply := m.answer(ctx, version, verb, lines[1], payload)
	if ctx.Err() != nil {
		return nil, 1 // it was killed
	}
	doc, err := json.Marshal(a)
	if err != nil {
		panic(err)
	}
	doc = append(doc, "\r\n"...)
	if reply != nil {
		doc = append(doc, base64.StdEncoding.EncodeToString(reply)+"\r\n"...)
	}
	return doc, 0
}
