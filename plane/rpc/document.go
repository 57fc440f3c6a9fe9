package rpc

import (
	"encoding/json"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// schemas is where components live in the document.
const schemas = "#/components/schemas/"

// Document returns the OpenAPI 3.1 description of the API, made from the words
// and messages themselves.
func Document() ([]byte, error) {
	d := describer{huma.NewMapRegistry(schemas, schemaName)}
	d.RegisterTypeAlias(reflect.TypeFor[estate.Bytes](), reflect.TypeFor[bytesText]())
	d.RegisterTypeAlias(reflect.TypeFor[estate.Duration](), reflect.TypeFor[durationText]())
	doc := &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info:    &huma.Info{Title: "Consort", Version: "v1", Description: "Desktops and applications composed out of independent layers."},
		Components: &huma.Components{
			Schemas: d.Registry,
			SecuritySchemes: map[string]*huma.SecurityScheme{
				"bearer": {Type: "http", Scheme: "bearer"},
				"cookie": {Type: "apiKey", In: "cookie", Name: "consort"},
			},
			Responses: map[string]*huma.Response{"Problem": {
				Description: "What went wrong and what to do next.",
				Content:     map[string]*huma.MediaType{api.ProblemType: {Schema: d.of(api.Problem{})}},
			}},
		},
		Security: []map[string][]string{{"bearer": {}}, {"cookie": {}}},
	}
	for _, k := range estate.Kinds() {
		doc.Tags = append(doc.Tags, &huma.Tag{Name: k.Plural, Description: k.Doc})
	}
	for _, t := range []string{"acts", "agents"} {
		doc.Tags = append(doc.Tags, &huma.Tag{Name: t})
	}
	d.listings()
	for _, r := range new(Server).routes() {
		doc.AddOperation(d.operation(r))
	}
	for _, s := range d.Map() {
		tidy(s)
	}
	data, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return nil, fault.Internal.Errorf("describe the API: %w", err)
	}
	return append(data, '\n'), nil
}

// bytesText and durationText are what amounts look like on the wire.
type (
	bytesText    string
	durationText string
)

// Schema implements huma.SchemaProvider.
func (bytesText) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Pattern: "^[0-9]+(Ki|Mi|Gi|Ti)?$", Examples: []any{"512Mi"}}
}

// Schema implements huma.SchemaProvider.
func (durationText) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Pattern: "^-?([0-9]+(\\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$|^0$", Examples: []any{"30s"}}
}

// schemaName keeps the two sorts of problems apart.
func schemaName(t reflect.Type, hint string) string {
	if t == reflect.TypeFor[estate.Problem]() {
		return "FieldProblem"
	}
	return huma.DefaultSchemaNamer(t, hint)
}

// describer makes schemas and operations.
type describer struct{ huma.Registry }

func (d describer) of(v any) *huma.Schema { return d.Schema(reflect.TypeOf(v), true, "") }

func ref(name string) *huma.Schema { return &huma.Schema{Ref: schemas + name} }

// object returns the schema of an object of the kind.
func (d describer) object(k estate.KindInfo) *huma.Schema { return d.of(k.New()) }

// listings adds, for each kind, its page and its line of a watch, and those of
// any kind.
func (d describer) listings() {
	var anyOf []*huma.Schema
	for _, k := range estate.Kinds() {
		one := d.object(k)
		d.Map()[string(k.Kind)].Properties["kind"].Enum = []any{string(k.Kind)} // tells the kinds apart
		anyOf = append(anyOf, one)
		d.variant(api.Page{}, string(k.Kind)+"Page", "items", &huma.Schema{Type: huma.TypeArray, Items: one})
		d.variant(api.WatchLine{}, string(k.Kind)+"Line", "object", one)
	}
	d.Map()["AnyObject"] = &huma.Schema{OneOf: anyOf, Description: "An object of any kind; its kind says which."}
	d.variant(api.WatchLine{}, "AnyLine", "object", ref("AnyObject"))
	d.variant(api.ApplyRequest{}, "ApplyRequest", "objects", &huma.Schema{Type: huma.TypeArray, Items: ref("AnyObject")})
}

// variant registers a message with one field of its own type.
func (d describer) variant(message any, name, field string, s *huma.Schema) {
	own := huma.SchemaFromType(d.Registry, reflect.TypeOf(message))
	s.Description = own.Properties[field].Description
	if s.Ref != "" {
		s = &huma.Schema{Ref: s.Ref} // a reference stands alone
	}
	own.Properties[field] = s
	d.Map()[name] = own
}

// operation describes one route.
func (d describer) operation(r route) *huma.Operation {
	op := &huma.Operation{OperationID: r.id, Method: r.method, Path: r.path, Tags: []string{"acts"}, Responses: map[string]*huma.Response{}}
	for part := range strings.SplitSeq(r.path, "/") {
		if strings.HasPrefix(part, "{") {
			op.Parameters = append(op.Parameters, &huma.Param{Name: strings.Trim(part, "{}"), In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString}})
		}
	}
	if r.kind.Kind != "" {
		op.Tags = []string{r.kind.Plural}
	}
	op.Responses["default"] = &huma.Response{Ref: "#/components/responses/Problem"}
	if !d.objectOperation(op, r) {
		d.act(op, r)
	}
	return op
}

// objectOperation describes what every kind has.
func (d describer) objectOperation(op *huma.Operation, r route) bool {
	one := string(r.kind.Kind)
	status := strings.HasSuffix(r.path, "/status")
	what := "a " + one
	if status {
		what = "the status of a " + one
	}
	switch {
	case strings.HasPrefix(r.id, "list"):
		op.Summary = "List " + r.kind.Plural + ", or watch them."
		op.Parameters = append(op.Parameters, query("limit", "At most this many; 500 when absent, 1000 at most."), query("continue", "What the page before gave out."),
			query("labels", "Only those with these labels: key=value, several with commas between."), query("watch", "true for a watch: one WatchLine a line."), query("version", "Of a watch: only what changed after it."))
		op.Responses["200"] = answer("The page; or the watch.", ref(one+"Page"))
		op.Responses["200"].Content[api.NDJSON] = &huma.MediaType{Schema: ref(one + "Line")}
	case r.id == "get"+one && one != "":
		op.Summary = "Read " + what + "."
		op.Responses["200"] = answer("The object; its version is the ETag.", d.object(r.kind))
	case r.method == http.MethodPut:
		op.Summary = "Create or replace " + what + "."
		op.RequestBody = body("application/json", d.object(r.kind))
	case r.method == http.MethodPatch:
		op.Summary = "Change some fields of " + what + "."
		op.RequestBody = body(api.MergePatch, &huma.Schema{Type: huma.TypeObject, AdditionalProperties: true})
	case r.method == http.MethodDelete:
		op.Summary = "Delete " + what + "."
		op.Responses["200"] = answer("It is gone, or will be once everything of it is cleaned up.", d.of(api.Empty{}))
	case r.id == "letGo"+one:
		op.Summary = "Say that a finalizer's owner has cleaned up after " + what + "."
		op.RequestBody = body("application/json", d.of(api.LetGoRequest{}))
		op.Responses["200"] = answer("The object goes with its last finalizer.", d.of(api.Empty{}))
	default:
		return false
	}
	if r.method != http.MethodGet && r.method != http.MethodPost {
		op.Parameters = append(op.Parameters, query("dryRun", "true to check and answer without writing."), header("If-Match", "Only if the object has this version."))
		if r.method == http.MethodPut && !status {
			op.Parameters = append(op.Parameters, header("If-None-Match", "* to create, never to replace."))
			op.Responses["201"] = answer("The object as created.", d.object(r.kind))
		}
		if op.Responses["200"] == nil {
			op.Responses["200"] = answer("The object as it is now.", d.object(r.kind))
		}
	}
	return true
}

// act describes what is not the same for every kind.
func (d describer) act(op *huma.Operation, r route) {
	type words struct {
		summary string
		in, out any
		status  int
	}
	session, _ := estate.KindNamed("Session")
	machine, _ := estate.KindNamed("Machine")
	service, _ := estate.KindNamed("Service")
	decision, _ := estate.KindNamed("Decision")
	w := map[string]words{
		"watch":            {"Watch several kinds over one connection: one line each.", nil, ref("AnyLine"), 200},
		"apply":            {"Make a set of objects as given: all of it or nothing.", ref("ApplyRequest"), d.of(api.ApplyResult{}), 200},
		"connect":          {"Ask for a session on a desktop and turn the desktop on.", d.of(api.ConnectRequest{}), d.object(session), 200},
		"connectPool":      {"Ask for a session on a seat of a pool, or a place in its queue.", d.of(api.ConnectRequest{}), d.object(session), 200},
		"startApplication": {"Start an application on a running desktop.", d.of(api.StartRequest{}), d.of(api.Empty{}), 200},
		"sendFile":         {"Carry the request's body into the home folder of a desktop's person, as its context allows.", nil, d.of(api.FileReply{}), 200},
		"fetchFile":        {"Carry a file out of the home folder of a desktop's person, as its context allows.", nil, nil, 200},
		"ticket":           {"Get what opens a ready session, once, within seconds.", d.of(api.TicketRequest{}), d.of(api.Ticket{}), 200},
		"offers":           {"Read what the providers of this plane can do.", nil, d.of(api.Offers{}), 200},
		"audit":            {"Read who did what: one record a line.", nil, d.of(auditLine{}), 200},
		"verifyAudit":      {"Check that the audit log is as it was written.", nil, d.of(auditReport{}), 200},
		"auditSeals":       {"Read how far the audit log had come, to keep elsewhere.", nil, d.of(seals{}), 200},
		"recordings":       {"Read of which sessions there are recordings.", nil, d.of(films{}), 200},
		"playRecording":    {"Read a recording: one piece a line. One that is not as it was written is a conflict.", nil, d.of(filmLine{}), 200},
		"verifyRecording":  {"Check that a recording is as it was written.", nil, d.of(auditReport{}), 200},
		"query":            {"Ask in PromQL what was measured at a moment.", nil, d.of(api.Answer{}), 200},
		"postQuery":        {"Ask in PromQL, with the question as a form.", nil, d.of(api.Answer{}), 200},
		"queryRange":       {"Ask in PromQL what was measured over a time.", nil, d.of(api.Answer{}), 200},
		"postQueryRange":   {"Ask in PromQL over a time, with the question as a form.", nil, d.of(api.Answer{}), 200},
		"me":               {"Read who the plane takes you for.", nil, d.of(api.Me{}), 200},
		"join":             {"An agent says that it is there.", nil, d.of(api.JoinReply{}), 200},
		"run":              {"Run a command in a machine's guest.", d.of(api.RunRequest{}), d.of(api.RunReply{}), 200},
		"trial":            {"Have a machine's host measure a workload.", d.of(api.TrialRequest{}), d.of(api.TrialReply{}), 200},
		"moveDesktop":      {"Have the machine of a desktop go to another hypervisor.", d.of(api.MoveRequest{}), d.of(api.MoveReply{}), 200},
		"moveMachine":      {"Have a machine go to another hypervisor.", d.of(api.MoveRequest{}), d.of(api.MoveReply{}), 200},
		"abort":            {"Ask for an operation to be undone.", nil, d.of(api.Empty{}), 200},
		"approve":          {"Agree to a decision that was proposed.", d.of(api.Empty{}), d.object(decision), 200},
		"undo":             {"Have a decision that was carried out be taken back.", d.of(api.Empty{}), d.object(decision), 200},
		"undoRollout":      {"Have a service be made as in an earlier revision.", d.of(api.UndoRequest{}), d.object(service), 200},
		"drain":            {"Keep new machines off a hypervisor, and move away those that can be.", d.of(api.MoveRequest{}), d.of(api.DrainReply{}), 200},
		"undrain":          {"Let a hypervisor take machines again.", nil, d.of(api.Empty{}), 200},
		"adopt":            {"Make a machine that was found on a hypervisor one of ours.", d.of(api.AdoptRequest{}), d.object(machine), 201},
		"alive":            {"An agent renews its lease.", d.of(api.AliveRequest{}), d.of(api.Empty{}), 200},
		"joinToken":        {"Make a token that lets one host join as the hypervisor.", d.of(api.JoinTokenRequest{}), d.of(api.JoinTokenReply{}), 200},
		"revoke":           {"End every certificate and token of the hypervisor's agent, and what it has open.", nil, d.of(api.RevokeReply{}), 200},
		"enrol":            {"A host trades its join token for a certificate. Needs no caller.", d.of(api.EnrolRequest{}), d.of(api.Certificate{}), 200},
		"renew":            {"An agent gets its next certificate.", d.of(api.RenewRequest{}), d.of(api.Certificate{}), 200},
		"claim":            {"An agent makes itself the only one that does a piece of work, or lets go of it.", d.of(api.ClaimRequest{}), d.of(api.Empty{}), 200},
		"fetch":            {"An agent gets content that some other host has: raw bytes of that host's agent.", d.of(api.FetchRequest{}), nil, 200},
		"calls":            {"An agent listens for calls: one line each; empty ones are signs of life.", nil, d.of(api.Call{}), 200},
		"refuseCall":       {"An agent says why it opens no tunnel for a call.", d.of(api.Problem{}), d.of(api.Empty{}), 200},
		"answerCall":       {"An agent answers a call with a tunnel of raw bytes (Upgrade: " + api.TunnelUpgrade + ").", nil, nil, 101},
	}[r.id]
	op.Summary = w.summary
	if strings.Contains(" join alive enrol renew claim fetch calls answerCall refuseCall ", " "+r.id+" ") {
		op.Tags = []string{"agents"}
	}
	if r.id == "watch" {
		op.Parameters = append(op.Parameters, query("kinds", "Names with commas between."), query("project", "Only this one, and what belongs to no project."),
			query("version", "Only what changed after it; everything first when absent."), query("labels", "Only those with these labels."))
	}
	if r.id == "audit" {
		op.Parameters = append(op.Parameters, query("since", "From this time, as 2026-11-23T08:00:00Z."), query("until", "Before this time."),
			query("who", "A person, agent:NAME or administrator; with * at the end whatever begins so."), query("what", "The act, in the same way."), query("on", "The object, in the same way."),
			query("after", "The sequence of a record: only those after it."), query("last", "Only so many, the newest."), query("watch", "true to go on with every record that comes."))
	}
	if strings.HasSuffix(r.path, "/file") {
		op.Parameters = append(op.Parameters, query("path", "Where in the home folder, as Downloads/report.odt."))
	}
	if strings.HasPrefix(r.path, api.MetricsPath) {
		op.Parameters = append(op.Parameters, query("query", "The question."))
		if r.path == api.QueryPath {
			op.Parameters = append(op.Parameters, query("time", "The moment, in seconds since 1970 or as 2026-11-23T08:00:00Z; now when absent."))
		} else {
			op.Parameters = append(op.Parameters, query("start", "The first moment."), query("end", "The last."), query("step", "Between two, in seconds or as 30s."))
		}
	}
	if r.streams {
		op.RequestBody = body("application/octet-stream", &huma.Schema{Type: huma.TypeString, Format: "binary"})
	}
	if in, ok := w.in.(*huma.Schema); ok {
		op.RequestBody = body("application/json", in)
	}
	res := &huma.Response{Description: "Done."}
	if out, ok := w.out.(*huma.Schema); ok {
		kind := "application/json"
		if r.id == "watch" || r.id == "calls" || r.id == "audit" || r.id == "playRecording" {
			kind = api.NDJSON
		}
		res.Content = map[string]*huma.MediaType{kind: {Schema: out}}
	}
	op.Responses[strconv.Itoa(w.status)] = res
}

func query(name, doc string) *huma.Param {
	return &huma.Param{Name: name, In: "query", Description: doc, Schema: &huma.Schema{Type: huma.TypeString}}
}

func header(name, doc string) *huma.Param {
	return &huma.Param{Name: name, In: "header", Description: doc, Schema: &huma.Schema{Type: huma.TypeString}}
}

func body(kind string, s *huma.Schema) *huma.RequestBody {
	return &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{kind: {Schema: s}}}
}

func answer(doc string, s *huma.Schema) *huma.Response {
	return &huma.Response{Description: doc, Content: map[string]*huma.MediaType{"application/json": {Schema: s}}}
}

// tidy takes back what the registry supposes and the words do not say: a list
// that is left out when empty is never null.
func tidy(s *huma.Schema) {
	if s == nil {
		return
	}
	for name, p := range s.Properties {
		if p.Type == huma.TypeArray && !slices.Contains(s.Required, name) {
			p.Nullable = false
		}
		tidy(p)
	}
	tidy(s.Items)
}
