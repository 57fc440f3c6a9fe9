package compose

import "consort.dev/consort/estate"

// Replica composes one replica of the service: the plan, or every reason why
// there can be none. Fields of a service that say the same as a blueprint's have
// the same names, so that paths lead to them.
func Replica(in Inventory, s *estate.Service) (estate.Plan, []Reason) {
	b := &estate.Blueprint{Head: s.Head, Spec: estate.BlueprintSpec{
		Image: s.Spec.Image, Applications: s.Spec.Applications, Context: s.Spec.Context, Hypervisor: s.Spec.Hypervisor, Size: s.Spec.Size,
	}}
	c := &composition{in: in.of(s.Metadata.Project), b: b}
	c.size()
	c.image()
	c.applications()
	c.context()
	if x, ok := named(c.in.Contexts, b.Spec.Context); ok && x.Spec.Network == "" {
		c.block("spec.context", "replicas are reached over a network; context %s has none: give it spec.network", b.Spec.Context)
	}
	if len(s.Spec.Applications) > 0 && c.img != nil && c.guest.User == "" {
		c.block("spec.image", "image %s names no account for the application to run under: give it guest.user", s.Spec.Image)
	}
	c.hypervisors()
	if len(Blocked(c.reasons)) > 0 || len(Waiting(c.reasons)) > 0 {
		return estate.Plan{}, c.reasons
	}
	return c.plan, Notes(c.reasons)
}
