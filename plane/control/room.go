package control

import (
	"consort.dev/consort/estate"
	"consort.dev/consort/plane/store"
)

// Sizes tells how large the disks are that begin as copies of an image.
type Sizes map[estate.Digest]estate.Bytes

// SizesOf returns the sizes of the images' contents.
func SizesOf(images []*estate.Image) Sizes {
	sizes := Sizes{}
	for _, m := range images {
		if m.Status.Digest != "" {
			sizes[m.Status.Digest] = m.Status.Size
		}
	}
	return sizes
}

// Needs returns what a machine takes of its host, whether it runs or not: all
// its memory, and of each copy of an image what it may come to.
func Needs(hw *estate.Hardware, sizes Sizes) estate.Capacity {
	need := estate.Capacity{CPUs: hw.CPUs, Memory: hw.Memory}
	for _, d := range hw.Disks {
		switch {
		case d.Volume != "":
		case d.Grow > 0:
			need.Disk += d.Grow
		default:
			need.Disk += max(d.Size, sizes[d.Image])
		}
	}
	return need
}

// Bounded reports whether it is known what the machine's disks come to. What
// other disks are given at most is rarely what they take, so that a host is not
// refused for those.
func Bounded(hw *estate.Hardware) bool {
	for _, d := range hw.Disks {
		if d.Grow > 0 {
			return true
		}
	}
	return false
}

// Left returns what the host has left beside the machines placed on it, and
// those on their way to it, but for the machine with the uid. It is negative
// where more was placed than there is. CPUs are shared, and not counted.
func Left(h *estate.Hypervisor, machines []*estate.Machine, sizes Sizes, but string) estate.Capacity {
	left := h.Status.Capacity
	for _, m := range machines {
		mv := m.Spec.Moving
		there := m.Spec.Hypervisor == h.Metadata.Name || mv != nil && mv.To == h.Metadata.Name
		if there && m.Metadata.UID != but {
			need := Needs(&m.Spec.Hardware, sizes)
			left.Memory -= need.Memory
			left.Disk -= need.Disk
		}
	}
	return left
}

// Rooms is where a key for every hypervisor begins that is written whenever room
// is taken there. Who takes room compares its revision with the one it has read
// before it counted, so that two never take the same.
const Rooms = "/consort/rooms/"

// Takes is the write by which somebody who has counted nothing says that room on
// the hypervisor is taken: whoever counted before then counts again.
func Takes(hypervisor string) store.Edit {
	return store.Raw(store.Txn{Then: []store.Write{{Key: Rooms + hypervisor}}})
}
