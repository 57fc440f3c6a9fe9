package hyperv

import (
	"context"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

func eachScript(t *testing.T, visit func(verb, text string)) {
	t.Helper()
	entries, err := fs.ReadDir(scripts, "scripts")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		text, err := fs.ReadFile(scripts, "scripts/"+e.Name())
		if err != nil {
			t.Fatal(err)
		}
		visit(strings.TrimSuffix(e.Name(), ".ps1"), string(text))
	}
}

// There is no PowerShell here to run the scripts. What can be told without it:
// each has its header, its brackets match, and nothing that comes from outside
// becomes script text, for no string interpolates and nothing is evaluated.
func TestScriptsHoldTheirHeaderAndEvaluateNothing(t *testing.T) {
	evaluates := regexp.MustCompile(`(?i)invoke-expression|\biex\b|scriptblock|add-type|&\s*\$|\.\s+\$|start-process|cmd(\.exe)?\s+/c`)
	eachScript(t, func(verb, text string) {
		if first, _, _ := strings.Cut(text, "\n"); first != header(verb) {
			t.Errorf("%s begins with %q, want %q", verb, first, header(verb))
		}
		if strings.Contains(text, `"`) {
			t.Errorf("%s has a string that interpolates; use single quotes and -f", verb)
		}
		if found := evaluates.FindString(text); found != "" {
			t.Errorf("%s says %q", verb, found)
		}
		if problem := unbalanced(text); problem != "" {
			t.Errorf("%s: %s", verb, problem)
		}
		if verb != "common" && strings.Count(text, "function Invoke-Request($a)") != 1 {
			t.Errorf("%s has no Invoke-Request", verb)
		}
	})
}

// unbalanced looks at brackets outside of strings and comments.
func unbalanced(text string) string {
	var open []byte
	pair := map[byte]byte{')': '(', ']': '[', '}': '{'}
	for i := 0; i < len(text); i++ {
		switch c := text[i]; c {
		case '\'':
			end := strings.IndexByte(text[i+1:], '\'')
			if end < 0 {
				return "a string does not end"
			}
			i += end + 1
		case '#':
			i += strings.IndexByte(text[i:], '\n')
		case '(', '[', '{':
			open = append(open, c)
		case ')', ']', '}':
			if len(open) == 0 || open[len(open)-1] != pair[c] {
				return "a bracket closes what is not open: " + text[max(0, i-30):i+1]
			}
			open = open[:len(open)-1]
		}
	}
	if len(open) > 0 {
		return "a bracket does not close"
	}
	return ""
}

func TestTheCheckOfBracketsBites(t *testing.T) {
	for _, text := range []string{"{", "(}", ")", "'"} {
		if unbalanced(text+"\n") == "" {
			t.Errorf("%q passes", text)
		}
	}
}

// requests has one of each request, and what it is answered with.
var requests = map[string][2]any{
	"describe": {describeRequest{}, described{}}, "list": {listRequest{}, listed{}}, "define": {defineRequest{}, nothing{}},
	"start": {startRequest{}, nothing{}}, "stop": {stopRequest{}, stopped{}}, "save": {saveRequest{}, nothing{}},
	"resize": {resizeRequest{}, nothing{}}, "remove": {removeRequest{}, nothing{}}, "snapshot": {snapshotRequest{}, snapshots{}},
	"measure": {measureRequest{}, measured{}}, "survey": {surveyRequest{}, surveyed{}}, "adopt": {adoptRequest{}, nothing{}},
	"release": {releaseRequest{}, nothing{}}, "has": {hasRequest{}, had{}}, "put-begin": {putBeginRequest{}, putBegun{}},
	"put-block": {putBlockRequest{}, nothing{}}, "put-end": {putEndRequest{}, nothing{}}, "get-begin": {getBeginRequest{}, getBegun{}},
	"get-block": {getBlockRequest{}, nothing{}}, "drop": {dropRequest{}, nothing{}}, "swap": {swapRequest{}, nothing{}},
}

// A script in strict mode fails where it reads what no request has, and one that
// answers with other names answers nothing.
func TestScriptsReadAndWriteTheFieldsOfTheProtocol(t *testing.T) {
	reads := regexp.MustCompile(`\$a\.([a-zA-Z0-9]+)`)
	eachScript(t, func(verb, text string) {
		if verb == "common" {
			return
		}
		r, ok := requests[verb]
		if !ok || verbs[verb] == nil {
			t.Errorf("script %s has no request, or the model does not know it", verb)
			return
		}
		fields := fieldsOf(reflect.TypeOf(r[0]))
		for _, m := range reads.FindAllStringSubmatch(text, -1) {
			if !slices.Contains(fields, m[1]) {
				t.Errorf("%s reads %q; its request has %q", verb, m[1], fields)
			}
		}
		for _, f := range fieldsOf(reflect.TypeOf(r[1])) {
			if !regexp.MustCompile(`\b` + f + `\s*=`).MatchString(text) {
				t.Errorf("%s never answers with %q", verb, f)
			}
		}
	})
}

func fieldsOf(t reflect.Type) []string {
	var all []string
	for i := range t.NumField() {
		all = append(all, t.Field(i).Tag.Get("json"))
	}
	return all
}

func TestTheCommandLineFitsAConsole(t *testing.T) {
	if n := len(commandLine()); n > 8191 {
		t.Errorf("the command line has %d characters, at most 8191", n)
	}
}

// transcript is a request with its answer. None was recorded from a host.
type transcript struct {
	Origin  string          `json:"origin"`
	Verb    string          `json:"verb"`
	Request json.RawMessage `json:"request"`
	Answer  json.RawMessage `json:"answer"`
	Means   json.RawMessage `json:"means"` // what we make of it: a result's value, or the kind and text of an error
}

const ourOwn = "written by us, never recorded from a host"

func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d transcripts, %v", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var tr transcript
		if err := json.Unmarshal(text, &tr); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if tr.Origin != ourOwn {
			t.Errorf("%s: origin %q, want %q", file, tr.Origin, ourOwn)
		}
		if got, want := again(t, tr), compact(t, tr.Request); got != want {
			t.Errorf("%s: the request is\n%s\nwant\n%s", file, got, want)
		}
		if got, want := meaning(t, tr), compact(t, tr.Means); got != want {
			t.Errorf("%s: the answer means\n%s\nwant\n%s", file, got, want)
		}
	}
}

// again decodes the request and encodes it, as it is sent.
func again(t *testing.T, tr transcript) string {
	t.Helper()
	args := reflect.New(reflect.TypeOf(requests[tr.Verb][0]))
	req := request{Args: args.Interface()}
	if err := json.Unmarshal(tr.Request, &req); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// meaning is what a caller learns from the answer.
func meaning(t *testing.T, tr transcript) string {
	t.Helper()
	a, _, err := parseAnswer(compactBytes(t, tr.Answer))
	result := reflect.New(reflect.TypeOf(requests[tr.Verb][1]))
	if err == nil && a.Error != nil {
		err = a.Error.err()
	}
	if err == nil {
		err = json.Unmarshal(a.Result, result.Interface())
	}
	var means any = result.Interface()
	if l, ok := means.(*listed); ok && err == nil {
		var ms []driver.Machine
		for _, m := range l.Machines {
			ms = append(ms, m.machine())
		}
		means = map[string]any{"power": powers(ms), "starts": starts(ms)}
	}
	if err != nil {
		means = map[string]string{"kind": fault.KindOf(err).String(), "text": err.Error()}
	}
	b, err := json.Marshal(means)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func powers(ms []driver.Machine) (all []estate.Power) {
	for _, m := range ms {
		all = append(all, m.Power)
	}
	return all
}

func starts(ms []driver.Machine) (all []int64) {
	for _, m := range ms {
		all = append(all, m.Starts)
	}
	return all
}

func compact(t *testing.T, b json.RawMessage) string { return string(compactBytes(t, b)) }

func compactBytes(t *testing.T, b json.RawMessage) []byte {
	t.Helper()
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	d := json.NewEncoder(&out)
	d.SetEscapeHTML(true)
	if err := d.Encode(json.RawMessage(b)); err != nil {
		t.Fatal(err)
	}
	return []byte(strings.TrimSpace(out.String()))
}

// TestAScriptOfAnotherVersionIsRefused is about hosts where an agent of another
// version left something running.
func TestAScriptOfAnotherVersionIsRefused(t *testing.T) {
	m := newModel(t)
	a, _ := m.answer(context.Background(), 2, "list", []byte(`{"version":2,"store":"","args":{}}`), nil)
	if a.Error == nil || a.Error.Kind != "unsupported" {
		t.Errorf("answer = %+v, want a refusal", a)
	}
	if _, _, err := parseAnswer([]byte(`{"version":2,"result":{}}`)); fault.KindOf(err) != fault.OutcomeUnknown {
		t.Errorf("an answer of version 2 is %v, want %v", err, fault.OutcomeUnknown)
	}
}

func FuzzReply(f *testing.F) {
	f.Add([]byte(`<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"><s:Body><r:ReceiveResponse xmlns:r="x"><r:Stream Name="stdout">aGk=</r:Stream></r:ReceiveResponse></s:Body></s:Envelope>`))
	f.Add([]byte(`<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"><s:Body><s:Fault><s:Detail><w:WSManFault xmlns:w="y" Code="2150858793"/></s:Detail></s:Fault></s:Body></s:Envelope>`))
	f.Add([]byte(`<html>`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseReply(data)
		if (r == nil) == (err == nil) {
			t.Fatalf("parseReply = %v, %v; want one of them", r, err)
		}
		if err == nil {
			r.shellID()
			r.output("stdout")
		}
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte("{\"version\":1,\"result\":{\"machines\":[]}}\r\n"))
	f.Add([]byte("{\"version\":1,\"error\":{\"kind\":\"busy\"}}\r\nAAAA"))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, _, err := parseAnswer(data)
		if err != nil {
			if fault.KindOf(err) != fault.OutcomeUnknown {
				t.Fatalf("%v is %v, want %v", err, fault.KindOf(err), fault.OutcomeUnknown)
			}
			return
		}
		if a.Error != nil && a.Error.err() == nil {
			t.Fatal("an error is none")
		}
		var l listed
		if json.Unmarshal(a.Result, &l) == nil {
			for _, m := range l.Machines {
				m.machine()
			}
		}
	})
}
