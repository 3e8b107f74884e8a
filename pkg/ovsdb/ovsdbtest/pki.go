package ovsdbtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A PKI is a certificate authority for a test.
type PKI struct {
	t    testing.TB
	dir  string
	key  *ecdsa.PrivateKey
	cert *x509.Certificate

	CA string // path of its certificate
}

// NewPKI makes a certificate authority.
func NewPKI(t testing.TB) *PKI {
	t.Helper()
	p := &PKI{t: t, dir: t.TempDir()}
	p.CA = filepath.Join(p.dir, "ca.pem")
	p.key = p.newKey()
	p.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	p.sign(p.cert, p.key, p.CA)
	return p
}

// Issue makes a key and a certificate for a name, which ovsdb-server takes for
// the client's identity, and returns the paths of their files.
func (p *PKI) Issue(name string) (privateKey, certificate string) {
	p.t.Helper()
	key := p.newKey()
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		p.t.Fatal(err)
	}
	privateKey = filepath.Join(p.dir, name+"-key.pem")
	certificate = filepath.Join(p.dir, name+"-cert.pem")
	p.write(privateKey, "EC PRIVATE KEY", der)
	p.sign(&x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}, key, certificate)
	return privateKey, certificate
}

func (p *PKI) newKey() *ecdsa.PrivateKey {
	p.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	return key
}

func (p *PKI) sign(cert *x509.Certificate, key *ecdsa.PrivateKey, path string) {
	p.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, cert, p.cert, key.Public(), p.key)
	if err != nil {
		p.t.Fatal(err)
	}
	p.write(path, "CERTIFICATE", der)
}

func (p *PKI) write(path, kind string, der []byte) {
	p.t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		p.t.Fatal(err)
	}
}
