package estate

import "testing"

func TestATemplateServesOneBoundaryAndOneKindOfMachine(t *testing.T) {
	hw := Hardware{CPUs: 2, Memory: GiB, Disks: []Disk{{Name: "root", Image: "sha256:aa"}}, NICs: []NIC{{Network: "office"}}}
	one, two := Layer{Digest: "sha256:11"}, Layer{Digest: "sha256:22"}
	name := TemplateName("p/office", hw, []Layer{one, two})

	same := hw
	same.Firmware, same.NICs = BIOS, []NIC{{Network: "lan"}}
	if got := TemplateName("p/office", same, []Layer{two, one}); got != name {
		t.Errorf("other networks, the usual firmware spelt out and the layers' order make %s of %s", got, name)
	}
	bigger, newer, alone := hw, hw, hw
	alone.NICs = nil
	bigger.Memory = 2 * GiB
	newer.Disks = []Disk{{Name: "root", Image: "sha256:bb"}}
	others := map[string]string{
		"another boundary": TemplateName("p/lab", hw, []Layer{one, two}),
		"more memory":      TemplateName("p/office", bigger, []Layer{one, two}),
		"no network card":  TemplateName("p/office", alone, []Layer{one, two}),
		"another image":    TemplateName("p/office", newer, []Layer{one, two}),
		"a layer less":     TemplateName("p/office", hw, []Layer{one}),
	}
	for what, got := range others {
		if got == name || got == "" {
			t.Errorf("%s: template %q, want one of its own", what, got)
		}
	}
	home := hw
	home.Disks = append(home.Disks, Disk{Name: "home", Volume: "anas"})
	if got := TemplateName("p/office", home, nil); got != "" {
		t.Errorf("a machine with a volume goes on from template %s, want none", got)
	}
	if hw.NICs[0].Network != "office" || same.NICs[0].Network != "lan" {
		t.Error("the hardware was changed")
	}
}
