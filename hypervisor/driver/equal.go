package driver

import (
	"cmp"
	"slices"

	"consort.dev/consort/estate"
)

// Equal reports whether two definitions make equal machines.
func (d Definition) Equal(o Definition) bool {
	return d.ID == o.ID && d.Name == o.Name && d.GuestType == o.GuestType && d.CPUs == o.CPUs && d.Memory == o.Memory &&
		cmp.Or(d.Firmware, estate.BIOS) == cmp.Or(o.Firmware, estate.BIOS) && d.Screen == o.Screen && d.Template == o.Template && d.Sealed == o.Sealed &&
		slices.EqualFunc(d.Disks, o.Disks, Disk.Equal) && slices.Equal(d.NICs, o.NICs)
}

// Equal reports whether two disks are the same to a guest.
func (d Disk) Equal(o Disk) bool {
	return d.Name == o.Name && d.Size == o.Size && d.ReadOnly == o.ReadOnly &&
		same(d.Base, o.Base) && same(d.File, o.File)
}

func same(a, b *Content) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}
