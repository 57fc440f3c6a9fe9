// Package authority is the estate's own small certificate authority: it vouches
// for the plane to agents and browsers, and for agents to the plane.
package authority

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/fault"
	"consort.dev/consort/internal/atomicfile"
)

const (
	ownLife    = 10 * 365 * 24 * time.Hour
	serverLife = 365 * 24 * time.Hour
	// backdated is for hosts whose clocks are behind.
	backdated = time.Hour
)

// Authority signs certificates. It is safe for concurrent use.
type Authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	now  func() time.Time
}

// Open loads the authority from dir, or makes it on the first day. Whoever
// reads that directory can be anybody in the estate: it is 0700.
func Open(dir string, now func() time.Time) (*Authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	file := filepath.Join(dir, "authority.pem")
	data, err := os.ReadFile(file)
	if os.IsNotExist(err) {
		if data, err = found(now()); err == nil {
			err = atomicfile.Write(file, data, 0o600)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	damaged := fault.Stuck.Errorf("%s is damaged: restore it from a backup, or remove it, have people trust the new one and hosts join again", file)
	cert, rest := pem.Decode(data)
	key, _ := pem.Decode(rest)
	if cert == nil || key == nil {
		return nil, damaged
	}
	a := &Authority{now: now}
	if a.cert, err = x509.ParseCertificate(cert.Bytes); err != nil {
		return nil, fmt.Errorf("%w: %w", damaged, err)
	}
	if a.key, err = x509.ParseECPrivateKey(key.Bytes); err != nil {
		return nil, fmt.Errorf("%w: %w", damaged, err)
	}
	return a, nil
}

// found makes a new authority: its certificate and its key.
func found(now time.Time) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	ca := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "Consort authority of this estate"},
		NotBefore: now.Add(-backdated), NotAfter: now.Add(ownLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	raw, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: raw})...), nil
}

// PEM returns the authority's certificate, without its key.
func (a *Authority) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// Fingerprint returns what join tokens know the authority by.
func (a *Authority) Fingerprint() string { return api.Fingerprint(a.cert) }

// Pool returns a pool that trusts the authority alone.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// Serving returns a tls.Config's GetCertificate: a certificate for a server of
// the plane at these names and addresses, made anew before it runs out. Agents
// know every server of the plane by api.PlaneName, whatever it is reached by.
func (a *Authority) Serving(names []string, ips []net.IP) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	var mu sync.Mutex
	var held *tls.Certificate
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		mu.Lock()
		defer mu.Unlock()
		if held != nil && held.Leaf.NotAfter.Sub(a.now()) > serverLife/3 {
			return held, nil
		}
		made, err := a.server(names, ips)
		if err == nil {
			held = made
		}
		return made, err
	}
}

func (a *Authority) server(names []string, ips []net.IP) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	leaf, err := a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "consort"}, DNSNames: append([]string{api.PlaneName}, names...), IPAddresses: ips,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, &key.PublicKey, serverLife)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{leaf.Raw, a.cert.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

// Agent signs the request of a hypervisor's agent, which must be for that
// hypervisor and by whoever holds its key. A request for another one is
// fault.Denied, one that cannot be read fault.Invalid.
func (a *Authority) Agent(hypervisor string, request []byte, life time.Duration) (*x509.Certificate, error) {
	block, _ := pem.Decode(request)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, fault.Invalid.Errorf("sign for agent %s: send a certificate request in PEM", hypervisor)
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err == nil {
		err = csr.CheckSignature()
	}
	if err != nil {
		return nil, fault.Invalid.Errorf("sign for agent %s: %w", hypervisor, err)
	}
	if csr.Subject.CommonName != api.AgentSubject(hypervisor) {
		return nil, fault.Denied.Errorf("sign for agent %s: the request is for %q", hypervisor, csr.Subject.CommonName)
	}
	switch csr.PublicKey.(type) {
	case *ecdsa.PublicKey, ed25519.PublicKey:
	default:
		return nil, fault.Invalid.Errorf("sign for agent %s: use an ECDSA or Ed25519 key", hypervisor)
	}
	// Nothing else of the request is taken over.
	return a.sign(&x509.Certificate{
		Subject:     pkix.Name{CommonName: api.AgentSubject(hypervisor)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, csr.PublicKey, life)
}

func (a *Authority) sign(leaf *x509.Certificate, public any, life time.Duration) (*x509.Certificate, error) {
	now := a.now()
	leaf.SerialNumber, leaf.KeyUsage = serial(), x509.KeyUsageDigitalSignature
	leaf.NotBefore, leaf.NotAfter = now.Add(-min(backdated, life/10)), now.Add(life)
	der, err := x509.CreateCertificate(rand.Reader, leaf, a.cert, public, a.key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

// serial is 127 random bits: RFC 5280, 4.1.2.2, allows at most 20 octets and
// no negative number.
func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		panic(err) // crypto/rand never fails on Linux
	}
	return n
}
