package estate

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
)

// TemplateName returns the name of the template from which machines of this
// hardware go on, those with the layers attached already. Memory that is shared
// until it is written tells others what is in it (CVE-2015-2877): the boundary
// is whom it may be told, as a project and a context, and no template serves
// two. Of network cards it counts how many there are. Hardware with a volume among
// its disks has none: the name is empty.
func TemplateName(boundary string, h Hardware, layers []Layer) string {
	h.NICs, h.Disks, layers = make([]NIC, len(h.NICs)), slices.Clone(h.Disks), slices.Clone(layers)
	if slices.ContainsFunc(h.Disks, func(d Disk) bool { return d.Volume != "" }) {
		return ""
	}
	if h.Firmware == "" {
		h.Firmware = BIOS
	}
	var content []Digest
	for _, l := range layers {
		content = append(content, l.Digest)
	}
	slices.Sort(content)
	b, err := json.Marshal(struct {
		Boundary string
		Hardware Hardware
		Layers   []Digest
	}{boundary, h, content})
	if err != nil {
		panic(err) // strings and numbers marshal
	}
	sum := sha256.Sum256(b)
	return "t-" + hex.EncodeToString(sum[:10])
}
