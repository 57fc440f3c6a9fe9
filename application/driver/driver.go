// Package driver is the contract for application providers: ways of bringing
// applications to a running desktop, apart from its system. A provider author
// reads this package and runs package drivertest; nothing else is needed.
//
// A provider never meets a hypervisor: it is handed a Machine that can do the
// few things it needs. Every method is safe for concurrent use on different
// machines, may be called twice with the effect of once, and returns promptly
// when its context ends; what it began then is finished or taken back by the
// next call for the same layer. A guest that cannot be reached is
// fault.Unavailable.
package driver

import (
	"context"

	"consort.dev/consort/estate"
)

// Provider brings applications to machines.
type Provider interface {
	// Describe says what the provider needs. It is cheap and never changes.
	Describe(ctx context.Context) (estate.DeliveryOffer, error)

	// Attach brings the layer to the machine and returns once the application
	// can be started there. A layer attached already is success.
	Attach(ctx context.Context, m Machine, l Layer) error

	// Attached returns the layers that can be started on the machine now,
	// sorted by digest: what the guest has, not what we remember.
	Attached(ctx context.Context, m Machine) ([]estate.Digest, error)

	// Start starts the application in a namespace of its own, as the person,
	// on the desktop, and returns once its process runs. One that runs is
	// success, and is not started again. A layer that is not attached is
	// fault.Conflict; a command that ends at once is fault.Stuck, with what it
	// printed.
	Start(ctx context.Context, m Machine, l Layer, app Launch) error

	// Detach ends the application's processes and takes the layer away; when it
	// returns the guest cannot read it any more. An absent layer is success.
	Detach(ctx context.Context, m Machine, layer estate.Digest) error
}

// Machine is a running machine as a provider may use it.
type Machine interface {
	// ID names the machine.
	ID() estate.MachineID
	// AttachDisk hot-plugs a read-only disk. The same disk twice is once.
	AttachDisk(ctx context.Context, d Disk) error
	// DetachDisk takes a disk out; an absent one is success.
	DetachDisk(ctx context.Context, name string) error
	// Disks returns the names of the disks that AttachDisk added, sorted.
	Disks(ctx context.Context) ([]string, error)
	// Run runs a command in the guest as its administrator. Secrets travel on
	// stdin.
	Run(ctx context.Context, args []string, stdin []byte) (Output, error)
}

// Disk is a read-only raw disk for a machine.
type Disk struct {
	Name string // the serial number the guest sees; at most 20 bytes
	Path string // raw content on the agent's host
	Size estate.Bytes
}

// Output is what a command in the guest left behind.
type Output struct {
	Exit           int
	Stdout, Stderr []byte
}

// Layer is an application's content, ready to be attached.
type Layer struct {
	Application string
	Version     string
	Digest      estate.Digest
	Path        string // raw content on the agent's host
	Size        estate.Bytes
}

// Launch is how an application starts.
type Launch struct {
	Command []string
	User    string // account in the guest
	Home    string // that account's home; what the application may write
}

// Builder is implemented by providers that make layers themselves.
type Builder interface {
	// Build makes the layer's content in a file of its own under dir and
	// returns its path; the content is the same, bit by bit, whenever the
	// recipe is. What it leaves behind when it fails, it removes.
	Build(ctx context.Context, r Recipe, dir string, report func(estate.Work)) (path string, err error)
}

// Recipe is what a layer is made of.
type Recipe struct {
	Application string
	Packages    []string // Debian packages, name or name=version
	Suite       string   // of the image
	DpkgStatus  string   // path of the image's /var/lib/dpkg/status: what need not be in the layer
}

// As returns p, or the nearest provider inside p, as a T.
func As[T any](p Provider) (t T, ok bool) {
	for p != nil {
		if t, ok = p.(T); ok {
			return t, true
		}
		w, wraps := p.(interface{ Unwrap() Provider })
		if !wraps {
			break
		}
		p = w.Unwrap()
	}
	return t, false
}
