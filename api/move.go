package api

import (
	"context"

	"consort.dev/consort/estate"
)

// MoveRequest asks for a machine, or the machine of a desktop, to go to another
// hypervisor.
type MoveRequest struct {
	To        string `json:"to,omitempty" doc:"The hypervisor; the one with most room of those that can take it when empty."`
	GuestType string `json:"guestType,omitempty" doc:"The type of guest it is to be there, as pv or pvh; when empty, what it is where that is made too, or else the usual one."`
	Live      bool   `json:"live,omitempty" doc:"Without powering it off."`
	Force     bool   `json:"force,omitempty" doc:"Although it is not known whether its system can run there."`
	NoVerify  bool   `json:"noVerify,omitempty" doc:"Do not try its guest at the other end."`
	DryRun    bool   `json:"dryRun,omitempty" doc:"Say what stands against it, do nothing."`
	Why       string `json:"why,omitempty" doc:"One sentence for the journal."`
}

// MoveReply is a move that began, or what stands against it.
type MoveReply struct {
	Machine   estate.Ref `json:"machine"`
	From      string     `json:"from"`
	To        string     `json:"to,omitempty"`
	Operation string     `json:"operation,omitempty" doc:"The journal of the move, in the machine's project; empty when nothing began."`
	Obstacles []string   `json:"obstacles,omitempty" doc:"Everything that keeps it from moving."`
	Notes     []string   `json:"notes,omitempty" doc:"What changes by it."`
}

// DrainReply is what became of every machine on a hypervisor that is drained.
type DrainReply struct {
	Moves []MoveReply `json:"moves"`
}

// Move asks for the machine, or the machine of the desktop, to go to another
// hypervisor. Obstacles are fault.Conflict, all of them in one error; a dry run
// returns them.
func (c *Client) Move(ctx context.Context, ref estate.Ref, req MoveRequest) (*MoveReply, error) {
	return answer[MoveReply](ctx, c, Path(ref)+"/move", req)
}

// Drain keeps new machines off the hypervisor and moves away those that can be.
func (c *Client) Drain(ctx context.Context, hypervisor string, req MoveRequest) (*DrainReply, error) {
	return answer[DrainReply](ctx, c, hypervisorPath(hypervisor, "drain"), req)
}

// Undrain lets the hypervisor take machines again.
func (c *Client) Undrain(ctx context.Context, hypervisor string) error {
	_, err := answer[Empty](ctx, c, hypervisorPath(hypervisor, "undrain"), Empty{})
	return err
}

// Abort asks for an operation to be undone. One that has ended is
// fault.Conflict.
func (c *Client) Abort(ctx context.Context, project, operation string) error {
	_, err := answer[Empty](ctx, c, Path(estate.Ref{Kind: "Operation", Project: project, Name: operation})+"/abort", Empty{})
	return err
}

// The calls of a move. Each may be made again with the effect of once, and is
// refused as fault.Stale unless the machine is on that move, under that epoch.
// But for export, one MovedReply line comes back.
const (
	CallRest    Verb = "rest"    // make sure that it is off and made; its disks come back
	CallPrepare Verb = "prepare" // make it at the target, with empty disks
	CallExport  Verb = "export"  // send a disk in the form of DiskWriter
	CallImport  Verb = "import"  // take a disk in the form of DiskWriter
	CallHash    Verb = "hash"    // say what a disk holds that was taken
	CallShelve  Verb = "shelve"  // undefine it, keep its disks
	CallTry     Verb = "try"     // run a command in its guest
	CallWhere   Verb = "where"   // say whether it is there, and whether it runs
	CallArrive  Verb = "arrive"  // await it while it runs
	CallDepart  Verb = "depart"  // send it while it runs
)

// OnMove is the part of a call that belongs to a move.
type OnMove struct {
	Project   string     `json:"project"`
	Name      string     `json:"name"`
	Operation string     `json:"operation"`
	Epoch     int64      `json:"epoch"`
	Disk      string     `json:"disk,omitempty" doc:"For export, import and hash."`
	Disks     []DiskSize `json:"disks,omitempty" doc:"For prepare and arrive."`
	At        string     `json:"at,omitempty" doc:"For depart: what arrive returned."`
}

// DiskSize is how large a disk is to its guest.
type DiskSize struct {
	Name string       `json:"name"`
	Size estate.Bytes `json:"size"`
}

// MovedReply is the line an agent answers a call of a move with.
type MovedReply struct {
	Error *Problem      `json:"error,omitempty"`
	Disks []DiskSize    `json:"disks,omitempty" doc:"Of rest."`
	Sent  estate.Digest `json:"sent,omitempty" doc:"Of hash: what the source says it sent."`
	Kept  estate.Digest `json:"kept,omitempty" doc:"Of hash: what is on the disk now."`
	Here  bool          `json:"here,omitempty" doc:"Of where: the host has it."`
	Power estate.Power  `json:"power,omitempty" doc:"Of where."`
	At    string        `json:"at,omitempty" doc:"Of arrive: where depart is to send it."`
}
