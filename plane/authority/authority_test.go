package authority_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/authority"
)

func TestADamagedAuthoritySaysWhatToDo(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "no key": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
		"not a certificate": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n",
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "authority.pem"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := authority.Open(dir, time.Now); !errors.Is(err, fault.Stuck) || !strings.Contains(err.Error(), "restore it from a backup") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func open(t *testing.T, dir string, now func() time.Time) *authority.Authority {
	t.Helper()
	a, err := authority.Open(dir, now)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestAnAuthorityStaysTheSameAndItsKeyPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	first := open(t, dir, time.Now)
	if again := open(t, dir, time.Now); again.Fingerprint() != first.Fingerprint() {
		t.Error("another authority after a restart")
	}
	if strings.Contains(string(first.PEM()), "PRIVATE") {
		t.Error("PEM gives the key away")
	}
	for path, want := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, "authority.pem"): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want mode %o", path, info.Mode(), err, want)
		}
	}
}

func TestAServersCertificateIsMadeAnewInTime(t *testing.T) {
	now := time.Now()
	a := open(t, t.TempDir(), func() time.Time { return now })
	show := a.Serving([]string{"desk.example.org"}, nil)
	first, err := show(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"desk.example.org", api.PlaneName} {
		if _, err := first.Leaf.Verify(x509.VerifyOptions{Roots: a.Pool(), DNSName: name}); err != nil {
			t.Error(err)
		}
	}
	now = now.Add(200 * 24 * time.Hour)
	if same, _ := show(nil); same != first {
		t.Error("made anew long before its time")
	}
	now = now.Add(100 * 24 * time.Hour)
	next, err := show(nil)
	if err != nil || next == first || !next.Leaf.NotAfter.After(first.Leaf.NotAfter) {
		t.Errorf("not made anew near its end: %v", err)
	}
}

func TestOnlyWhatWasAskedRightlyIsSignedAndNothingElseOfIt(t *testing.T) {
	a := open(t, t.TempDir(), time.Now)
	good, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, edwards, _ := ed25519.GenerateKey(rand.Reader)
	old, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(name string, key any) []byte {
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
			Subject: pkix.Name{CommonName: name, Organization: []string{"smuggled"}}, DNSNames: []string{api.PlaneName},
		}, key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	}
	broken := ask("agent:east", good)
	block, _ := pem.Decode(broken)
	block.Bytes[len(block.Bytes)-1] ^= 1
	for name, c := range map[string]struct {
		request []byte
		want    error
	}{
		"rightly":          {ask("agent:east", good), nil},
		"with Ed25519":     {ask("agent:east", edwards), nil},
		"with RSA":         {ask("agent:east", old), fault.Invalid},
		"for another":      {ask("agent:west", good), fault.Denied},
		"for a server":     {ask("consort", good), fault.Denied},
		"without its key":  {pem.EncodeToMemory(block), fault.Invalid},
		"in no known form": {[]byte("please"), fault.Invalid},
	} {
		cert, err := a.Agent("east", c.request, time.Hour)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if err != nil {
			continue
		}
		if len(cert.DNSNames) > 0 || len(cert.Subject.Organization) > 0 || api.AgentIn(cert) != "east" {
			t.Errorf("%s: signed %v %v", name, cert.Subject, cert.DNSNames)
		}
		if _, err := cert.Verify(x509.VerifyOptions{Roots: a.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err == nil {
			t.Errorf("%s: an agent's certificate passes for a server's", name)
		}
	}
}
