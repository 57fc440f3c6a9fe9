package main

import (
	"crypto/tls"
	"net"
	"os"

	"consort.dev/consort/fault"
	"consort.dev/consort/plane/authority"
)

// serving returns how the public door gets its certificate: the one given, or
// one of our own authority for this host.
func serving(o upOptions, ca *authority.Authority, host string) (func(*tls.ClientHelloInfo) (*tls.Certificate, error), error) {
	if (o.tlsCert == "") != (o.tlsKey == "") {
		return nil, fault.Invalid.Errorf("a certificate has a key: give both --tls-cert and --tls-key, or neither for a certificate of our own authority")
	}
	if o.tlsCert == "" {
		return servingOwn(ca, host), nil
	}
	c, err := tls.LoadX509KeyPair(o.tlsCert, o.tlsKey)
	if err != nil {
		return nil, fault.Invalid.Errorf("certificate %s with key %s: %w; both are PEM files, the certificate first in its chain", o.tlsCert, o.tlsKey, err)
	}
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &c, nil }, nil
}

// servingOwn makes certificates of our own authority for this host.
func servingOwn(ca *authority.Authority, host string) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	names := []string{"localhost"}
	if h, err := os.Hostname(); err == nil {
		names = append(names, h)
	}
	return ca.Serving(names, addressesOf(host))
}

// addressesOf returns the addresses a certificate for the listening host names.
func addressesOf(host string) []net.IP {
	if ip := net.ParseIP(host); ip != nil && !ip.IsUnspecified() {
		return []net.IP{ip}
	}
	ips := []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return ips
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() {
			ips = append(ips, n.IP)
		}
	}
	return ips
}
