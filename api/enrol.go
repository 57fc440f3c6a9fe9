package api

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"strings"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// PlaneName is the name in every certificate of the plane. Agents check it in
// place of a host's name, so that the plane may be reached by any address.
const PlaneName = "plane.consort"

// AgentSubject returns the common name in the certificate of a hypervisor's agent.
func AgentSubject(hypervisor string) string { return agentSubject + hypervisor }

const agentSubject = "agent:"

// AgentIn returns the hypervisor whose agent's certificate it is, or "".
func AgentIn(c *x509.Certificate) string {
	name, ok := strings.CutPrefix(c.Subject.CommonName, agentSubject)
	if !ok {
		return ""
	}
	return name
}

// Fingerprint returns the SHA-256 of a certificate as join tokens write it.
func Fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// joinPrefix lets people and scanners see what a string is.
const joinPrefix = "consort_join_"

// JoinToken lets one host join once. It names the plane's authority, so that
// the host knows whom it talks to before it has any certificate.
type JoinToken struct {
	Hypervisor string
	Secret     string
	Authority  string // Fingerprint of its certificate
}

// String returns the token as ParseJoinToken reads it.
func (t JoinToken) String() string {
	return joinPrefix + t.Hypervisor + "." + t.Secret + "." + t.Authority
}

// ParseJoinToken reads a join token. Errors never hold any of it.
func ParseJoinToken(text string) (JoinToken, error) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(text), joinPrefix)
	parts := strings.Split(rest, ".")
	if !ok || len(parts) != 3 || estate.NameProblem(parts[0]) != "" || parts[1] == "" || parts[2] == "" {
		return JoinToken{}, fault.Invalid.Errorf("that is no join token: make one with 'consort hypervisor token NAME' and copy all of its line")
	}
	return JoinToken{parts[0], parts[1], parts[2]}, nil
}

// TLS returns how to reach the plane that made the token: any address will do,
// and nobody but that plane.
func (t JoinToken) TLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: PlaneName,
		// The authority is not known yet but by its fingerprint, so the check is
		// VerifyConnection's, and is as strict.
		InsecureSkipVerify: true,
		VerifyConnection:   t.verify,
	}
}

func (t JoinToken) verify(s tls.ConnectionState) error {
	for _, c := range s.PeerCertificates[1:] {
		if Fingerprint(c) != t.Authority {
			continue
		}
		roots := x509.NewCertPool()
		roots.AddCert(c)
		_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{
			Roots: roots, DNSName: PlaneName, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		})
		return err
	}
	return fault.Denied.Errorf("whoever answers there is not the plane that made the token: check the address, and that nobody is in between")
}

// JoinTokenRequest asks for a token that lets a host join.
type JoinTokenRequest struct {
	TTL estate.Duration `json:"ttl,omitempty" doc:"How long it is good; an hour when empty."`
}

// JoinTokenReply is the token. It is told this once.
type JoinTokenReply struct {
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
	Server  string    `json:"server,omitempty" doc:"Where the plane listens for agents; empty when it listens for none."`
}

// EnrolRequest asks for the first certificate of an agent.
type EnrolRequest struct {
	Token   string `json:"token" doc:"The join token; it is used up."`
	Request string `json:"request" doc:"Certificate request in PEM, for agent: and the hypervisor's name."`
}

// RenewRequest asks for the next certificate of an agent, which comes with the
// one it has.
type RenewRequest struct {
	Request string `json:"request" doc:"Certificate request in PEM, for agent: and the hypervisor's name."`
}

// Certificate is what an agent proves itself with.
type Certificate struct {
	Certificate string    `json:"certificate" doc:"In PEM."`
	Authority   string    `json:"authority" doc:"The plane's authority, in PEM."`
	Expires     time.Time `json:"expires"`
}

// RevokeReply says what ended.
type RevokeReply struct {
	Ended int `json:"ended" doc:"How many certificates and tokens are no longer good."`
}

// JoinToken makes a token that lets one host join as the hypervisor, once.
func (c *Client) JoinToken(ctx context.Context, hypervisor string, ttl time.Duration) (*JoinTokenReply, error) {
	return answer[JoinTokenReply](ctx, c, hypervisorPath(hypervisor, "token"), JoinTokenRequest{estate.Duration(ttl)})
}

// Revoke ends every certificate and token of the hypervisor's agent, and what
// it is connected by.
func (c *Client) Revoke(ctx context.Context, hypervisor string) (*RevokeReply, error) {
	return answer[RevokeReply](ctx, c, hypervisorPath(hypervisor, "revoke"), Empty{})
}

// Enrol trades a join token for an agent's first certificate.
func (c *Client) Enrol(ctx context.Context, token, request string) (*Certificate, error) {
	return answer[Certificate](ctx, c, EnrolPath, EnrolRequest{token, request})
}

// Renew gets the agent's next certificate. The one it came with stays good
// until it expires; any other ends.
func (c *Client) Renew(ctx context.Context, hypervisor, request string) (*Certificate, error) {
	return answer[Certificate](ctx, c, hypervisorPath(hypervisor, "renew"), RenewRequest{request})
}
