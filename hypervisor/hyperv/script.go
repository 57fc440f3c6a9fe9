package hyperv

import (
	"bytes"
	"context"
	"embed"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf16"

	"consort.dev/consort/fault"
)

// protocol is the version that requests, scripts and answers must agree on.
const protocol = 1

//go:embed scripts/*.ps1
var scripts embed.FS

// bootstrap is all that stands on a command line: it takes a script, a request
// and perhaps bytes from its input, a line of base64 each. A console's command
// line has at most 8191 characters; input has no such limit, and PowerShell runs
// nothing of it before its end.
const bootstrap = `$ProgressPreference='SilentlyContinue';` +
	`$i=@($input|Where-Object{$_});$u=[Text.Encoding]::UTF8;` +
	`$a=@($u.GetString([Convert]::FromBase64String($i[1])));if($i.Count -gt 2){$a+=$i[2]};` +
	`&([ScriptBlock]::Create($u.GetString([Convert]::FromBase64String($i[0])))) @a`

// commandLine runs the bootstrap, which PowerShell takes as base64 of UTF-16.
func commandLine() string {
	var b []byte
	for _, c := range utf16.Encode([]rune(bootstrap)) {
		b = binary.LittleEndian.AppendUint16(b, c)
	}
	return "powershell.exe -NoLogo -NoProfile -NonInteractive -ExecutionPolicy Bypass -OutputFormat Text -EncodedCommand " +
		base64.StdEncoding.EncodeToString(b)
}

// script returns what runs for a verb: its own script, then the common one.
func script(verb string) ([]byte, error) {
	own, err := scripts.ReadFile("scripts/" + verb + ".ps1")
	if err != nil {
		return nil, err
	}
	common, err := scripts.ReadFile("scripts/common.ps1")
	return append(append(own, '\n'), common...), err
}

// header is the first line of each script.
func header(verb string) string {
	return fmt.Sprintf("# consort hyper-v protocol %d: %s", protocol, verb)
}

// request is the document that a script is given.
type request struct {
	Version int    `json:"version"`
	Store   string `json:"store"`
	Args    any    `json:"args"`
}

// answer is the document that a script prints. It has a result or an error.
type answer struct {
	Version int             `json:"version"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *scriptError    `json:"error,omitempty"`
}

// scriptError is what went wrong in a script: one of our kinds where we said so
// ourselves, else PowerShell's own identifier of the error.
type scriptError struct {
	Kind    string `json:"kind"`
	ID      string `json:"id"`
	Message string `json:"message"`
}

// vendorKinds says what the identifiers of the Hyper-V module's errors mean.
// They are "IDENTIFIER,Microsoft.HyperV.PowerShell.Commands.X"; what is not here
// is Internal, with the vendor's text.
var vendorKinds = map[string]fault.Kind{
	"AccessDenied":     fault.Denied,
	"InvalidParameter": fault.Invalid,
	"InvalidState":     fault.Busy, // we looked at the state before: it changed since
	"ObjectInUse":      fault.Busy,
	"ObjectNotFound":   fault.NotFound,
	"OutOfMemory":      fault.NoCapacity,
	"NotEnoughMemory":  fault.NoCapacity,
	"NotSupported":     fault.Unsupported,
}

func (e *scriptError) err() error {
	kind := fault.Named(e.Kind)
	if e.Kind == "" {
		id, _, _ := strings.Cut(e.ID, ",")
		kind = vendorKinds[id]
	}
	if e.ID == "" {
		return kind.Errorf("%s", e.Message)
	}
	return kind.Errorf("%s (%s)", e.Message, e.ID)
}

// parseAnswer reads what a script printed: a line of JSON, and perhaps a line of
// base64 after it.
func parseAnswer(out []byte) (answer, []byte, error) {
	first, rest, _ := bytes.Cut(bytes.TrimSpace(out), []byte("\n"))
	var a answer
	if err := json.Unmarshal(first, &a); err != nil {
		return answer{}, nil, fault.OutcomeUnknown.Errorf("the host's answer is not one of our scripts': %w", err)
	}
	switch {
	case a.Version != protocol:
		return answer{}, nil, fault.OutcomeUnknown.Errorf("the host answers in version %d of the protocol, not %d", a.Version, protocol)
	case (a.Error == nil) == (len(a.Result) == 0):
		return answer{}, nil, fault.OutcomeUnknown.Errorf("the host's answer has neither a result nor an error")
	}
	data, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(rest)))
	if err != nil {
		return answer{}, nil, fault.OutcomeUnknown.Errorf("the bytes beside the host's answer: %w", err)
	}
	return a, data, nil
}

// remote runs our scripts on the host.
type remote struct {
	winrm *winrm
	store string // set once the host was described
}

// call runs the verb's script and reads its answer into result. Bytes may
// travel beside the request and the answer.
func (r *remote) call(ctx context.Context, verb string, args, result any, payload []byte) ([]byte, error) {
	text, err := script(verb)
	if err != nil {
		return nil, err
	}
	doc, err := json.Marshal(request{protocol, r.store, args})
	if err != nil {
		return nil, err
	}
	var input bytes.Buffer
	for _, line := range [][]byte{text, doc, payload} {
		if line != nil {
			input.WriteString(base64.StdEncoding.EncodeToString(line) + "\r\n")
		}
	}
	out, err := r.winrm.run(ctx, commandLine(), input.Bytes())
	if err != nil {
		return nil, named(ctx, verb, err)
	}
	a, data, err := parseAnswer(out)
	if err != nil {
		return nil, named(ctx, verb, err)
	}
	if a.Error != nil {
		return nil, a.Error.err()
	}
	if err := json.Unmarshal(a.Result, result); err != nil {
		return nil, named(ctx, verb, fault.OutcomeUnknown.Errorf("the result is not what protocol %d says: %w", protocol, err))
	}
	return data, nil
}

// act is call for requests whose answer is that it was done.
func (r *remote) act(ctx context.Context, verb string, args any) error {
	_, err := r.call(ctx, verb, args, &nothing{}, nil)
	return err
}

// ask is call for questions: that the answer was lost has changed nothing.
func (r *remote) ask(ctx context.Context, verb string, args, result any) error {
	_, err := r.call(ctx, verb, args, result, nil)
	if err != nil && ctx.Err() == nil && errors.Is(err, fault.OutcomeUnknown) {
		return fault.Unavailable.Errorf("%w", err)
	}
	return err
}

// named says which request it was; a caller's own end stays what it is.
func named(ctx context.Context, verb string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fault.KindOf(err).Errorf("%s: %w", verb, err)
}
