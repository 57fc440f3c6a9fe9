package estate

import (
	"fmt"
	"strings"
)

// Application is what its vendor knows of an application.
type Application struct {
	Head
	Spec   ApplicationSpec   `json:"spec"`
	Status ApplicationStatus `json:"status,omitzero"`
}

// ApplicationSpec is how an application is delivered and started.
type ApplicationSpec struct {
	Title    string               `json:"title" doc:"What people call it."`
	Icon     string               `json:"icon,omitempty" doc:"One or two characters drawn on its button."`
	Delivery string               `json:"delivery" doc:"The application provider that brings it to a desktop."`
	Command  []string             `json:"command" doc:"Program and arguments that start it in the guest."`
	Versions []ApplicationVersion `json:"versions" doc:"Newest first."`
	Needs    ApplicationNeeds     `json:"needs,omitzero"`
}

// ApplicationVersion is one version of an application.
type ApplicationVersion struct {
	Name     string   `json:"name" doc:"What blueprints say, as 7.4."`
	Packages []string `json:"packages" doc:"Debian packages, each as name or name=version; dependencies the image lacks come with them."`
}

// ApplicationNeeds is what an application asks of the desktop around it.
type ApplicationNeeds struct {
	OS     string `json:"os,omitempty" doc:"The guest's os must equal this."`
	Memory Bytes  `json:"memory,omitempty" doc:"The machine must have this much."`
	Screen bool   `json:"screen,omitempty" doc:"It draws windows."`
}

// ApplicationStatus lists the layers that were cut.
type ApplicationStatus struct {
	Progress
	Layers []LayerBuild `json:"layers,omitempty"`
}

// LayerBuild is one version cut for one image.
type LayerBuild struct {
	Version string `json:"version"`
	Image   Digest `json:"image" doc:"The image whose content it completes."`
	Digest  Digest `json:"digest,omitempty" doc:"The layer's content; empty until it is there."`
	Size    Bytes  `json:"size,omitempty"`
	Work    *Work  `json:"work,omitempty"`
	Text    string `json:"text,omitempty" doc:"What went wrong."`
}

// Layer returns the build of a version for an image.
func (s *ApplicationStatus) Layer(version string, image Digest) (LayerBuild, bool) {
	for _, l := range s.Layers {
		if l.Version == version && l.Image == image {
			return l, true
		}
	}
	return LayerBuild{}, false
}

// Version returns the version with the name; the newest for "".
func (s *ApplicationSpec) Version(name string) (ApplicationVersion, bool) {
	for _, v := range s.Versions {
		if v.Name == name || name == "" {
			return v, true
		}
	}
	return ApplicationVersion{}, false
}

// Check implements Resource.
func (a *Application) Check() []Problem {
	var c checks
	s := &a.Spec
	if s.Title == "" {
		c.add("spec.title", "an application needs a title")
	}
	c.name("spec.delivery", s.Delivery, true)
	if len(s.Command) == 0 || s.Command[0] == "" {
		c.add("spec.command", "an application needs a command that starts it")
	}
	for i, word := range s.Command {
		if strings.ContainsAny(word, "\x00\n") {
			c.add(fmt.Sprintf("spec.command[%d]", i), "a word of a command holds no line break; write it in one line")
		}
	}
	if len(s.Versions) == 0 {
		c.add("spec.versions", "an application needs at least one version")
	}
	seen := map[string]bool{}
	for i, v := range s.Versions {
		p := fmt.Sprintf("spec.versions[%d]", i)
		if v.Name == "" {
			c.add(p+".name", "a version needs a name")
		}
		if seen[v.Name] {
			c.add(p+".name", "%q names two versions", v.Name)
		}
		seen[v.Name] = true
		if len(v.Packages) == 0 {
			c.add(p+".packages", "a version needs at least one package")
		}
		for j, pkg := range v.Packages {
			if !packageAtVersion(pkg) {
				c.add(fmt.Sprintf("%s.packages[%d]", p, j), "%q is not a Debian package; write name or name=version", pkg)
			}
		}
	}
	return c
}

// Links implements Resource.
func (a *Application) Links() []Link { return nil }

// Progress implements Resource.
func (a *Application) Progress() *Progress { return &a.Status.Progress }
