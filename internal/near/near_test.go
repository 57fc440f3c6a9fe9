package near

import "testing"

func TestName(t *testing.T) {
	known := []string{"presentation", "image", "hypervisor", "applications"}
	for got, want := range map[string]string{
		"presentatoin": "presentation", "Image": "image", "hypervisro": "hypervisor", "application": "applications", "zebra": "",
	} {
		if n := Name(got, known); n != want {
			t.Errorf("Name(%q) = %q, want %q", got, n, want)
		}
	}
}

func TestDidYouMean(t *testing.T) {
	for _, c := range []struct {
		name  string
		known []string
		want  string
	}{
		{"imgae", []string{"image"}, "; did you mean image?"},
		{"zebra", []string{"b", "a"}, "; there are: a, b"},
		{"zebra", nil, ""},
	} {
		if got := DidYouMean(c.name, c.known, "there are"); got != c.want {
			t.Errorf("DidYouMean(%q, %q) = %q, want %q", c.name, c.known, got, c.want)
		}
	}
}
