package kvmprobe

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMain is the probe's child when the environment says so.
func TestMain(m *testing.M) {
	switch os.Getenv("KVMPROBE_TEST") {
	case "child":
		if Child() != nil {
			os.Exit(1)
		}
		return
	case "hang":
		time.Sleep(time.Minute)
	case "die":
		os.Exit(3)
	}
	os.Exit(m.Run())
}

func TestProbeEndsInTimeWhateverTheDeviceDoes(t *testing.T) {
	t.Setenv("KVMPROBE_TEST", "child")
	start := time.Now()
	v := Probe(t.Context(), []string{"/proc/self/exe"})
	if took := time.Since(start); took > patience+time.Second {
		t.Errorf("took %v, want at most %v", took, patience)
	}
	if v.Because == "" || v.Usable == strings.Contains(v.Because, "not used") {
		t.Errorf("verdict %+v does not say why", v)
	}
	t.Log(v.Because)
}

func TestAChildThatFailsMeansNoKVM(t *testing.T) {
	if _, err := os.Stat("/dev/kvm"); err != nil {
		t.Skip("no /dev/kvm: nothing is started")
	}
	for _, how := range []string{"hang", "die"} {
		t.Setenv("KVMPROBE_TEST", how)
		if v := Probe(t.Context(), []string{"/proc/self/exe"}); v.Usable {
			t.Errorf("a child that does %q: %+v", how, v)
		}
	}
}

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		r    report
		want bool
		text string
	}{
		{report{Took: 2 * time.Millisecond}, true, "in 2ms"},
		{report{Took: 60 * time.Millisecond}, true, "in 60ms"},
		{report{Took: 1300 * time.Millisecond}, false, "interprets"},
		{report{Error: "it makes no CPU: no"}, false, "makes no CPU"},
	} {
		if got := judge(c.r); got.Usable != c.want || !strings.Contains(got.Because, c.text) {
			t.Errorf("judge(%+v) = %+v, want usable %v because of %q", c.r, got, c.want, c.text)
		}
	}
}

func TestAVerdictIsRememberedForTheBootAndTheDevice(t *testing.T) {
	if _, err := os.Stat("/dev/kvm"); err != nil {
		t.Skip("this host has no /dev/kvm: nothing is probed")
	}
	file := filepath.Join(t.TempDir(), "kvm.json")
	first := Remembered(t.Context(), []string{"false"}, file)
	again := Remembered(t.Context(), []string{"/nowhere"}, file)
	if again != first || first.Because == "" {
		t.Errorf("verdicts %+v, then %+v; want the remembered one", first, again)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	other := strings.Replace(string(data), "\"Of\":\"", "\"Of\":\"another boot ", 1)
	if err := os.WriteFile(file, []byte(other), 0o600); err != nil {
		t.Fatal(err)
	}
	if v := Remembered(t.Context(), []string{"/nowhere"}, file); v == first {
		t.Error("the verdict of another boot counts")
	}
}
