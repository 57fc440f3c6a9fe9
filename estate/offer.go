package estate

// PresentationOffer is what a presentation provider says of itself, as data, so
// that compose can reason about it without holding the provider.
type PresentationOffer struct {
	Name     string `json:"name"`
	Version  string `json:"version,omitempty"`
	Protocol string `json:"protocol" doc:"What it speaks to the machine."`
	Guest    bool   `json:"guest,omitempty" doc:"The guest serves the protocol; otherwise the hypervisor's display does."`
	Browser  bool   `json:"browser,omitempty" doc:"It can be shown in the portal."`
	File     string `json:"file,omitempty" doc:"Extension of the file it hands to a native viewer."`
	Keeps    bool   `json:"keeps,omitempty" doc:"It sees what crosses, and keeps every rule of a context. One that does not is for contexts without such rules."`
}

// DeliveryOffer is what an application provider says of itself.
type DeliveryOffer struct {
	Name    string       `json:"name"`
	Version string       `json:"version,omitempty"`
	Needs   []Capability `json:"needs,omitempty" doc:"What the hypervisor must be able to do."`
	Agent   bool         `json:"agent,omitempty" doc:"The guest needs an agent."`
}

// HypervisorOffer is a hypervisor provider this build can drive.
type HypervisorOffer struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
}
