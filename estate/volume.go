package estate

// Volume is data that outlives a desktop: a disk of its own.
type Volume struct {
	Head
	Spec   VolumeSpec   `json:"spec"`
	Status VolumeStatus `json:"status,omitzero"`
}

// VolumeSpec is whose data it is and how much.
type VolumeSpec struct {
	Person string `json:"person,omitempty" doc:"Whose home it is."`
	Size   Bytes  `json:"size"`
	// Holder is written in the transaction that gives the volume to a machine,
	// so two machines never have it at once.
	Holder MachineID `json:"holder,omitempty" doc:"The only machine that may attach it; written by the plane."`
}

// VolumeStatus is where the data lies.
type VolumeStatus struct {
	Progress
	Hypervisor string `json:"hypervisor,omitempty" doc:"The host that has it."`
}

// Check implements Resource.
func (v *Volume) Check() []Problem {
	var c checks
	c.name("spec.person", v.Spec.Person, false)
	if v.Spec.Size < 16*MiB {
		c.add("spec.size", "%s is too little; at least 16Mi", v.Spec.Size)
	}
	return c
}

// Links implements Resource.
func (v *Volume) Links() []Link {
	if v.Spec.Person == "" {
		return nil
	}
	return []Link{{"spec.person", Ref{"Person", "", v.Spec.Person}}}
}

// Progress implements Resource.
func (v *Volume) Progress() *Progress { return &v.Status.Progress }
