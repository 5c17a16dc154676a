package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"sync"
	"time"
)

// An authority signs a certificate for each name that it is asked for, as an
// inspecting proxy does. Whoever trusts it can be read.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	made sync.Map // name: *tls.Certificate
}

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template("calloutd example authority", true), template("calloutd example authority", true), &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &authority{cert: cert, key: key}, err
}

func template(name string, authority bool) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62)) // The reader does not fail.
	t := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour), IsCA: authority, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature}
	switch ip := net.ParseIP(name); {
	case authority:
		t.KeyUsage |= x509.KeyUsageCertSign
	case ip != nil:
		t.IPAddresses = []net.IP{ip}
	default:
		t.DNSNames = []string{name}
	}
	return t
}

// certificate is for tls.Config.GetCertificate.
func (a *authority) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name := hello.ServerName
	if name == "" {
		return nil, errors.New("the client names no server")
	}
	if c, ok := a.made.Load(name); ok {
		return c.(*tls.Certificate), nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template(name, false), a.cert, &key.PublicKey, a.key)
	if err != nil {
		return nil, err
	}
	c, _ := a.made.LoadOrStore(name, &tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: key})
	return c.(*tls.Certificate), nil
}

// pool is what a client must trust.
func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}
