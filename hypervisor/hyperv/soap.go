package hyperv

import (
	"bytes"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"strings"
	"time"

	"consort.dev/consort/fault"
)

// The messages of MS-WSMV that a remote command takes. Names of actions and
// elements are those of the specification, sections 2.2.4 and 3.1.4.
const (
	actCreate  = "http://schemas.xmlsoap.org/ws/2004/09/transfer/Create"
	actDelete  = "http://schemas.xmlsoap.org/ws/2004/09/transfer/Delete"
	shellSpace = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell"
	actCommand = shellSpace + "/Command"
	actSend    = shellSpace + "/Send"
	actReceive = shellSpace + "/Receive"
	actSignal  = shellSpace + "/Signal"
	stateDone  = shellSpace + "/CommandState/Done"
)

// Codes of faults that we act on (MS-WSMV 2.2.9, as decimal numbers on the wire).
const (
	faultTimedOut   = 2150858793 // nothing to receive within the operation's time
	faultNoShell    = 2150858843 // the shell is gone
	faultShells     = 2150859173 // more shells than the user may have
	faultOperations = 2150859174 // more operations than the user may have begun in one shell
)

// maxEnvelope is what Windows takes unless told otherwise, 500 KB.
const maxEnvelope = 500 << 10

// message is what goes to the service.
type message struct {
	action string
	shell  string            // the shell's ID; empty to create one
	option map[string]string // at most one or two; order is nobody's concern
	body   string            // XML, made by the functions below
}

// encode returns the envelope. Everything that is not ours is escaped.
func (m message) encode(to, id string, limit time.Duration) []byte {
	var b bytes.Buffer
	b.WriteString(`<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing"` +
		` xmlns:w="http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd" xmlns:p="http://schemas.microsoft.com/wbem/wsman/1/wsman.xsd" xmlns:rsp="` + shellSpace + `"><s:Header>`)
	fmt.Fprintf(&b, `<a:To>%s</a:To>`, escape(to))
	b.WriteString(`<w:ResourceURI s:mustUnderstand="true">` + shellSpace + `/cmd</w:ResourceURI>` +
		`<a:ReplyTo><a:Address s:mustUnderstand="true">http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous</a:Address></a:ReplyTo>`)
	fmt.Fprintf(&b, `<a:Action s:mustUnderstand="true">%s</a:Action><w:MaxEnvelopeSize s:mustUnderstand="true">%d</w:MaxEnvelopeSize>`, m.action, maxEnvelope)
	fmt.Fprintf(&b, `<a:MessageID>uuid:%s</a:MessageID><w:Locale xml:lang="en-US" s:mustUnderstand="false"/><p:DataLocale xml:lang="en-US" s:mustUnderstand="false"/>`, id)
	fmt.Fprintf(&b, `<w:OperationTimeout>PT%.3fS</w:OperationTimeout>`, limit.Seconds())
	if m.shell != "" {
		fmt.Fprintf(&b, `<w:SelectorSet><w:Selector Name="ShellId">%s</w:Selector></w:SelectorSet>`, escape(m.shell))
	}
	if len(m.option) > 0 {
		b.WriteString(`<w:OptionSet>`)
		for name, value := range m.option {
			fmt.Fprintf(&b, `<w:Option Name="%s">%s</w:Option>`, escape(name), escape(value))
		}
		b.WriteString(`</w:OptionSet>`)
	}
	fmt.Fprintf(&b, `</s:Header><s:Body>%s</s:Body></s:Envelope>`, m.body)
	return b.Bytes()
}

func createShell() message {
	return message{
		action: actCreate,
		option: map[string]string{"WINRS_NOPROFILE": "TRUE", "WINRS_CODEPAGE": "65001"},
		body: `<rsp:Shell><rsp:IdleTimeOut>PT600.000S</rsp:IdleTimeOut><rsp:InputStreams>stdin</rsp:InputStreams>` +
			`<rsp:OutputStreams>stdout stderr</rsp:OutputStreams></rsp:Shell>`,
	}
}

func deleteShell(shell string) message { return message{action: actDelete, shell: shell} }

// runCommand begins a command whose input is a pipe and not a console.
func runCommand(shell, line string) message {
	return message{
		action: actCommand, shell: shell,
		option: map[string]string{"WINRS_CONSOLEMODE_STDIN": "FALSE", "WINRS_SKIP_CMD_SHELL": "FALSE"},
		body:   `<rsp:CommandLine><rsp:Command>` + escape(line) + `</rsp:Command></rsp:CommandLine>`,
	}
}

func sendInput(shell, command string, data []byte, last bool) message {
	end := ""
	if last {
		end = ` End="true"`
	}
	return message{action: actSend, shell: shell, body: fmt.Sprintf(`<rsp:Send><rsp:Stream Name="stdin" CommandId="%s"%s>%s</rsp:Stream></rsp:Send>`,
		escape(command), end, base64.StdEncoding.EncodeToString(data))}
}

func receiveOutput(shell, command string) message {
	return message{action: actReceive, shell: shell,
		body: fmt.Sprintf(`<rsp:Receive><rsp:DesiredStream CommandId="%s">stdout stderr</rsp:DesiredStream></rsp:Receive>`, escape(command))}
}

func terminate(shell, command string) message {
	return message{action: actSignal, shell: shell,
		body: fmt.Sprintf(`<rsp:Signal CommandId="%s"><rsp:Code>%s/signal/terminate</rsp:Code></rsp:Signal>`, escape(command), shellSpace)}
}

func escape(s string) string {
	var b strings.Builder
	xml.EscapeText(&b, []byte(s)) // a Builder takes everything
	return b.String()
}

// reply is what comes back, as far as we read it.
type reply struct {
	Body struct {
		Shell struct {
			ID string `xml:"ShellId"`
		} `xml:"Shell"`
		Created struct {
			Selectors []struct {
				Name string `xml:"Name,attr"`
				Text string `xml:",chardata"`
			} `xml:"ReferenceParameters>SelectorSet>Selector"`
		} `xml:"ResourceCreated"`
		Command struct {
			ID string `xml:"CommandId"`
		} `xml:"CommandResponse"`
		Receive struct {
			Streams []struct {
				Name string `xml:"Name,attr"`
				Text string `xml:",chardata"`
			} `xml:"Stream"`
			State struct {
				State string `xml:"State,attr"`
				Exit  int    `xml:"ExitCode"`
			} `xml:"CommandState"`
		} `xml:"ReceiveResponse"`
		Fault *struct {
			Reason string `xml:"Reason>Text"`
			Detail struct {
				Code    uint32 `xml:"Code,attr"`
				Message string `xml:"Message"`
			} `xml:"Detail>WSManFault"`
		} `xml:"Fault"`
	} `xml:"Body"`
}

// wsFault is a refusal by the service, in its own words.
type wsFault struct {
	code uint32
	text string
}

func (f *wsFault) Error() string { return fmt.Sprintf("WS-Management fault %d: %s", f.code, f.text) }

// parseReply reads an envelope. One that is none is fault.Unavailable: whoever
// sent it is no WinRM service, or something between us and it spoke instead.
func parseReply(data []byte) (*reply, error) {
	var r struct {
		XMLName xml.Name `xml:"http://www.w3.org/2003/05/soap-envelope Envelope"`
		reply
	}
	if err := xml.Unmarshal(data, &r); err != nil {
		return nil, fault.Unavailable.Errorf("read the answer of WinRM: %w", err)
	}
	if f := r.Body.Fault; f != nil {
		text := strings.TrimSpace(f.Detail.Message)
		if text == "" {
			text = strings.TrimSpace(f.Reason)
		}
		return nil, &wsFault{f.Detail.Code, text}
	}
	return &r.reply, nil
}

// shellID returns the ID of the shell that was created.
func (r *reply) shellID() string {
	for _, s := range r.Body.Created.Selectors {
		if s.Name == "ShellId" {
			return strings.TrimSpace(s.Text)
		}
	}
	return strings.TrimSpace(r.Body.Shell.ID)
}

// output returns what a stream yielded, each piece decoded.
func (r *reply) output(name string) ([]byte, error) {
	var all []byte
	for _, s := range r.Body.Receive.Streams {
		if s.Name != name {
			continue
		}
		piece, err := base64.StdEncoding.DecodeString(strings.TrimSpace(s.Text))
		if err != nil {
			return nil, fault.Unavailable.Errorf("read the output that WinRM carries: %w", err)
		}
		all = append(all, piece...)
	}
	return all, nil
}
