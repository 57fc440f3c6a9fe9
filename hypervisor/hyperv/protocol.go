package hyperv

import "consort.dev/consort/estate"

// The requests and answers of protocol 1. Each type of request is a script of
// its name. Every field is sent, and lists are never null: the scripts run in
// strict mode, where what is absent is an error.

type describeRequest struct{}

type described struct {
	Product  string   `json:"product"`
	Host     string   `json:"host"`
	Store    string   `json:"store"` // the folder on the host that holds all that we keep
	CPUs     int      `json:"cpus"`
	Memory   int64    `json:"memory"`
	Disk     int64    `json:"disk"`
	Switches []string `json:"switches"`
}

type listRequest struct {
	ID estate.MachineID `json:"id"` // every machine when empty
}

type listed struct {
	Machines []listedMachine `json:"machines"`
}

type listedMachine struct {
	ID       estate.MachineID `json:"id"`
	State    string           `json:"state"`  // Hyper-V's; empty where there is no virtual machine
	Record   string           `json:"record"` // what we keep of it, as we wrote it; empty where a cut left none
	Making   bool             `json:"making"` // its definition was cut
	Starts   int64            `json:"starts"`
	Starting int64            `json:"starting"` // the number of the power-on begun last
	Started  string           `json:"started"`  // when that was, RFC 3339
}

// diskSpec is a disk of a machine, at its place in the order. Make says how its
// file comes to be: "empty", the stored file it differs from, or "" where it
// was uploaded.
type diskSpec struct {
	File   string `json:"file"`
	Make   string `json:"make"`
	Size   int64  `json:"size"`
	Volume bool   `json:"volume"` // outlives the machine; no snapshot holds it
}

type nicSpec struct {
	MAC    string `json:"mac"`
	Switch string `json:"switch"`
}

type defineRequest struct {
	ID         estate.MachineID `json:"id"`
	Name       string           `json:"name"`
	Generation int              `json:"generation"`
	CPUs       int              `json:"cpus"`
	Memory     int64            `json:"memory"`
	Record     string           `json:"record"`
	Disks      []diskSpec       `json:"disks"`
	NICs       []nicSpec        `json:"nics"`
}

type startRequest struct {
	ID      estate.MachineID `json:"id"`
	Adopted bool             `json:"adopted"`
	Disks   []diskSpec       `json:"disks"`
}

type stopRequest struct {
	ID   estate.MachineID `json:"id"`
	Hard bool             `json:"hard"`
}

type stopped struct {
	Asked bool `json:"asked"` // the guest was asked, and may go
}

type saveRequest struct {
	ID estate.MachineID `json:"id"`
}

type resizeRequest struct {
	ID     estate.MachineID `json:"id"`
	CPUs   int              `json:"cpus"`
	Memory int64            `json:"memory"`
	Record string           `json:"record"`
}

type removeRequest struct {
	ID     estate.MachineID `json:"id"`
	Shelve bool             `json:"shelve"`
	Drop   []string         `json:"drop"` // stored files to remove besides
}

type snapshotRequest struct {
	ID     estate.MachineID `json:"id"`
	Act    string           `json:"act"` // take, apply, drop or list
	Name   string           `json:"name"`
	CPUs   int              `json:"cpus"`
	Memory int64            `json:"memory"`
	Disks  []diskSpec       `json:"disks"`
}

type snapshots struct {
	Names []string `json:"names"`
}

type measureRequest struct {
	ID estate.MachineID `json:"id"`
}

type measured struct {
	CPU      int64 `json:"cpu"` // ns
	Memory   int64 `json:"memory"`
	Read     int64 `json:"read"`
	Written  int64 `json:"written"`
	Received int64 `json:"received"`
	Sent     int64 `json:"sent"`
}

type surveyRequest struct {
	ID estate.MachineID `json:"id"` // every machine when empty
}

type surveyed struct {
	Found []foundMachine `json:"found"`
}

type foundMachine struct {
	ID         estate.MachineID `json:"id"`
	Name       string           `json:"name"`
	State      string           `json:"state"`
	Generation int              `json:"generation"`
	CPUs       int              `json:"cpus"`
	Memory     int64            `json:"memory"`
	Clustered  bool             `json:"clustered"`
	Replicated bool             `json:"replicated"`
	Disks      []foundDisk      `json:"disks"`
	NICs       []nicSpec        `json:"nics"`
}

type foundDisk struct {
	Path string `json:"path"`
	Size int64  `json:"size"`
}

type adoptRequest struct {
	ID     estate.MachineID `json:"id"`
	Record string           `json:"record"`
}

type releaseRequest struct {
	ID estate.MachineID `json:"id"`
}

type hasRequest struct {
	File string `json:"file"`
}

type had struct {
	Has bool `json:"has"`
}

type putBeginRequest struct {
	File   string `json:"file"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

type putBegun struct {
	Offset int64 `json:"offset"` // what is before it has arrived already
}

type putBlockRequest struct {
	File   string `json:"file"`
	Offset int64  `json:"offset"`
	SHA256 string `json:"sha256"` // of the bytes, which travel beside
}

type putEndRequest struct {
	File     string `json:"file"`
	SHA256   string `json:"sha256"`
	ReadOnly bool   `json:"readOnly"`
}

type getBeginRequest struct {
	ID      estate.MachineID `json:"id"`
	Adopted bool             `json:"adopted"`
	Slot    int              `json:"slot"` // the disk's place
	File    string           `json:"file"` // what the disk is laid out in
}

type getBegun struct {
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

type getBlockRequest struct {
	File   string `json:"file"`
	Offset int64  `json:"offset"`
	Length int    `json:"length"`
}

type dropRequest struct {
	File string `json:"file"`
}

type swapRequest struct {
	ID     estate.MachineID `json:"id"`
	Slot   int              `json:"slot"`
	Record string           `json:"record"`
	Disks  []diskSpec       `json:"disks"`
}

// nothing is the answer to requests that only act.
type nothing struct{}
