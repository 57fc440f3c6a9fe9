// Package api is what crosses processes: the routes and messages of the HTTP
// API, and the client that the command line and the agents use.
package api

import (
	"net/url"
	"strconv"

	"consort.dev/consort/estate"
)

// The fixed routes.
const (
	WatchPath    = "/v1/watch"
	ApplyPath    = "/v1/apply"
	OffersPath   = "/v1/offers"
	MePath       = "/v1/me"
	TunnelPath   = "/v1/tunnel" // served by the gateway
	SignInPath   = "/v1/sign-in/"
	SignOutPath  = "/v1/sign-out"
	DocumentPath = "/openapi.json"
	AuditPath    = "/v1/audit"

	RecordingsPath = "/v1/recordings"
	EnrolPath      = "/v1/enrol" // all that an agent without a certificate can reach

	// MetricsPath is what Prometheus's own tools are given as a server.
	MetricsPath    = "/v1/metrics"
	QueryPath      = MetricsPath + "/api/v1/query"
	QueryRangePath = MetricsPath + "/api/v1/query_range"
)

// Names on the wire.
const (
	MergePatch     = "application/merge-patch+json" // RFC 7396
	ProblemType    = "application/problem+json"     // RFC 9457
	NDJSON         = "application/x-ndjson"
	TunnelUpgrade  = "consort-tunnel" // Upgrade: of an agent's answer to a Call
	TunnelProtocol = "consort.v1"     // websocket subprotocol of the gateway
	TicketProtocol = "ticket."        // prefix of the subprotocol that carries a ticket
)

// AgentLeases is the prefix of the store keys that live as long as an agent's
// lease: AgentLeases + the hypervisor's name. A hypervisor without its key has
// lost its agent.
const AgentLeases = "/consort/agents/"

// Claims is the prefix of the store keys that say which agent does a piece of
// work that only one should do. They go with the agent's lease.
const Claims = "/consort/claims/"

// Path returns where the object is served.
func Path(ref estate.Ref) string {
	k, ok := estate.KindNamed(string(ref.Kind))
	if !ok {
		return "/v1/" + url.PathEscape(string(ref.Kind)) + "/" + url.PathEscape(ref.Name)
	}
	return ListPath(k, ref.Project) + "/" + url.PathEscape(ref.Name)
}

// ListPath returns where the objects of the kind are listed: those of one
// project, or of all when project is empty or the kind is global.
func ListPath(k estate.KindInfo, project string) string {
	if k.Global || project == "" {
		return "/v1/" + k.Plural
	}
	return "/v1/projects/" + url.PathEscape(project) + "/" + k.Plural
}

// CallPath returns where an agent answers the call.
func CallPath(id string) string { return "/v1/calls/" + url.PathEscape(id) }

// ETag returns the entity tag of a version.
func ETag(version int64) string { return strconv.Quote(strconv.FormatInt(version, 10)) }
