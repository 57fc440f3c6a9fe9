package api

import (
	"encoding/json"
	"time"

	"consort.dev/consort/estate"
)

// ApplyRequest asks for a set of objects to be as given: all of it, or nothing.
//
// Apply sets the whole spec and the labels of each object. What the plane
// writes into a spec is kept: hypervisor and epoch of a Machine, holder of a
// Volume, and the power of a Desktop where the set leaves it empty.
type ApplyRequest struct {
	Objects []json.RawMessage `json:"objects" doc:"Objects of any kind, in any order."`
	DryRun  bool              `json:"dryRun,omitempty" doc:"Check and compare, write nothing."`
}

// ApplyResult is what became of an applied set, in the order of the request.
type ApplyResult struct {
	Results []Applied `json:"results"`
}

// Applied is what became of one object.
type Applied struct {
	Ref     estate.Ref   `json:"ref"`
	Change  ChangeKind   `json:"change" enum:"created,changed,unchanged"`
	Diff    []Difference `json:"diff,omitempty" doc:"What differs, by field."`
	Version int64        `json:"version,omitempty" doc:"The version it has now."`
}

// ChangeKind says what a write did, or would do.
type ChangeKind string

// What a write did.
const (
	Created   ChangeKind = "created"
	Changed   ChangeKind = "changed"
	Unchanged ChangeKind = "unchanged"
)

// Difference is one field that differs. A side that does not have it is absent.
type Difference struct {
	Path string          `json:"path"`
	Was  json.RawMessage `json:"was,omitempty"`
	Is   json.RawMessage `json:"is,omitempty"`
}

// Page is part of a listing.
type Page struct {
	Items    []json.RawMessage `json:"items"`
	Version  int64             `json:"version" doc:"Watch from here to miss nothing."`
	Continue string            `json:"continue,omitempty" doc:"Ask for the next page with it; absent on the last."`
}

// WatchType says what a line of a watch is.
type WatchType string

// The lines of a watch.
const (
	Put      WatchType = "put"      // the object is there, as given
	Deleted  WatchType = "deleted"  // the object is gone, or no longer for the caller to see
	Bookmark WatchType = "bookmark" // everything up to the version has been told
)

// WatchLine is one line of a watch. A watch without a version begins with
// everything there is, as puts, and a bookmark.
type WatchLine struct {
	Type    WatchType       `json:"type" enum:"put,deleted,bookmark"`
	Version int64           `json:"version" doc:"Resume from the last one seen."`
	Object  json.RawMessage `json:"object,omitempty"`
}

// ConnectRequest asks for a session on a desktop, or on a seat of a pool.
type ConnectRequest struct {
	Presentation string `json:"presentation,omitempty" doc:"The blueprint's own when empty."`
	Another      bool   `json:"another,omitempty" doc:"Of a pool: one more seat than the person has, up to what the pool allows."`
	Person       string `json:"person,omitempty" doc:"Of a pool: for whom; the caller when empty. Only administrators connect somebody else."`
}

// TicketRequest asks for a ticket to a session that is ready.
type TicketRequest struct {
	Native bool `json:"native,omitempty" doc:"For a native viewer, which must show the secret that comes with the ticket."`
}

// Ticket opens one session, once, within seconds.
type Ticket struct {
	Ticket  string    `json:"ticket" doc:"Goes into the websocket subprotocol after ticket. and nowhere else."`
	Expires time.Time `json:"expires"`
	Secret  string    `json:"secret,omitempty" doc:"What a native viewer must show; one use."`
	User    string    `json:"user,omitempty" doc:"The guest's account that Secret is the password of, where the guest asks for it."`
}

// AdoptRequest asks for a machine that was found on a hypervisor to become ours.
type AdoptRequest struct {
	ID      estate.MachineID `json:"id" doc:"The vendor's UUID, as in the hypervisor's status."`
	Project string           `json:"project"`
	Name    string           `json:"name" doc:"What it is called here."`
	DryRun  bool             `json:"dryRun,omitempty"`
}

// StartRequest asks for an application to be started on a desktop.
type StartRequest struct {
	Application string `json:"application"`
}

// Offers is what this plane's providers can do.
type Offers struct {
	Presentations []estate.PresentationOffer `json:"presentations"`
	Deliveries    []estate.DeliveryOffer     `json:"deliveries"`
	Hypervisors   []estate.HypervisorOffer   `json:"hypervisors"`
}

// Me is the caller as the plane knows it.
type Me struct {
	Person string   `json:"person,omitempty"`
	Title  string   `json:"title,omitempty" doc:"The name shown."`
	Admin  bool     `json:"admin,omitempty"`
	Agent  string   `json:"agent,omitempty" doc:"The hypervisor whose agent it is."`
	Groups []string `json:"groups,omitempty"`
	Scopes []string `json:"scopes,omitempty"`
}

// JoinReply is the lease an agent holds.
type JoinReply struct {
	Lease string          `json:"lease" doc:"Send it with every sign of life."`
	TTL   estate.Duration `json:"ttl" doc:"How long the plane waits for the next one."`
}

// AliveRequest is a sign of life.
type AliveRequest struct {
	Lease string `json:"lease"`
}

// Verb is what a call asks of an agent.
type Verb string

// The verbs of calls.
const (
	CallDisplay Verb = "display" // a tunnel to the machine's screen
	CallPort    Verb = "port"    // a tunnel to a TCP port of the guest
	CallStart   Verb = "start"   // start an application; one StartReply line comes back
	CallAccount Verb = "account" // set a password of the guest; one StartReply line comes back
	CallContent Verb = "content" // send content to another host, which checks it
	CallUsage   Verb = "usage"   // what all machines of the host use; one UsageReply line comes back
)

// Call asks an agent for a tunnel, or for an act whose outcome comes back
// through one. The agent answers with OpenCall, once.
type Call struct {
	ID      string           `json:"id"`
	Verb    Verb             `json:"verb" enum:"display,port,start,account,content,usage,run,file,trial,rest,prepare,export,import,hash,shelve,try,where,arrive,depart"`
	Machine estate.MachineID `json:"machine,omitempty" doc:"For all but content and usage."`
	Port    int              `json:"port,omitempty" doc:"For port."`
	Start   *Start           `json:"start,omitempty" doc:"For start."`
	Account *Account         `json:"account,omitempty" doc:"For account."`
	File    *File            `json:"file,omitempty" doc:"For file."`
	Moving  *OnMove          `json:"moving,omitempty" doc:"For the calls of a move."`
	Content *FetchRequest    `json:"content,omitempty" doc:"For content."`
}

// Account is an account of the guest and the password it gets for one session.
type Account struct {
	User     string `json:"user"`
	Password string `json:"password"`
}

// LetGoRequest says who has cleaned up after an object.
type LetGoRequest struct {
	Finalizer string `json:"finalizer"`
}

// Start is an application to start on a machine.
type Start struct {
	Layer   estate.Layer `json:"layer"`
	Command []string     `json:"command"`
	User    string       `json:"user,omitempty"`
	Home    string       `json:"home,omitempty"`
}

// StartReply is the line an agent answers a start with. No error means that
// the application runs.
type StartReply struct {
	Error *Problem `json:"error,omitempty"`
}

// UsageReply is what the machines that run on a host use.
type UsageReply struct {
	Machines []MachineUsage `json:"machines"`
}

// MachineUsage is what a machine has used since it was powered on. What its host
// does not tell is -1.
type MachineUsage struct {
	Machine     estate.Ref `json:"machine"`
	CPU         float64    `json:"cpu" doc:"Seconds, of guest and emulation together."`
	Memory      int64      `json:"memory" doc:"Bytes that are resident now; the others are bytes, too."`
	DiskRead    int64      `json:"diskRead"`
	DiskWritten int64      `json:"diskWritten"`
	Received    int64      `json:"received" doc:"Through its network cards."`
	Sent        int64      `json:"sent"`
}

// Empty is the answer where there is nothing to say.
type Empty struct{}
