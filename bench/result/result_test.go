package result

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

func TestPercentilesAreSamples(t *testing.T) {
	s := Samples{}
	for i := 20; i > 0; i-- {
		s.Add("x", float64(i))
	}
	for p, want := range map[int]float64{0: 1, 5: 1, 50: 10, 95: 19, 96: 20, 100: 20} {
		if got := s.Percentile("x", p); got != want {
			t.Errorf("p%d = %v, want %v", p, got, want)
		}
	}
	if got := s.Percentile("none", 50); got != 0 {
		t.Errorf("p50 of nothing = %v, want 0", got)
	}
}

func TestAResultSaysWhereItWasMade(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "x.json")
	if err := Write(path, "x", map[string]float64{"a_ms": 1.5}, Samples{"a": {1, 2}}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got file
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if got.Name != "x" || got.Commit == "" || got.At.IsZero() || got.Machine == "" || got.Metrics["a_ms"] != 1.5 || len(got.Samples["a"]) != 2 {
		t.Errorf("result = %+v", got)
	}
}

func TestPSSIsThisProcess(t *testing.T) {
	if kib, err := PSS(os.Getpid()); err != nil || kib < 1000 || kib > 1e6 {
		t.Errorf("PSS = %v KiB, %v", kib, err)
	}
}
