package lab

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// makePKI writes a certificate authority, and a key and certificate for the databases and for each node
// (common name: the chassis name, as the RBAC rules want it), into the lab's pki directory.
func (l *Lab) makePKI() error {
	if err := os.Mkdir(filepath.Join(l.Dir, "pki"), 0o755); err != nil {
		return err
	}
	ca, caKey, err := l.certify("ca", nil, nil)
	if err != nil {
		return err
	}
	names := []string{"central"}
	for _, n := range l.Nodes {
		names = append(names, n.Name)
	}
	for _, name := range names {
		if _, _, err := l.certify(name, ca, caKey); err != nil {
			return err
		}
	}
	return nil
}

// certify makes a key and has it signed by ca, or by itself if ca is nil.
func (l *Lab) certify(name string, ca *x509.Certificate, caKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	fail := func(err error) (*x509.Certificate, *ecdsa.PrivateKey, error) {
		return nil, nil, fmt.Errorf("lab certificate %s: %w", name, err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fail(err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 64))
	if err != nil {
		return fail(err)
	}
	cert := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: name},
		DNSNames:              []string{name},
		IPAddresses:           []net.IP{net.ParseIP(centralIP)},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	parent, parentKey := ca, caKey
	if ca == nil {
		cert.IsCA, cert.KeyUsage = true, x509.KeyUsageCertSign
		parent, parentKey = cert, key
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, parent, &key.PublicKey, parentKey)
	if err != nil {
		return fail(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fail(err)
	}
	for file, block := range map[string]*pem.Block{
		name + ".key": {Type: "PRIVATE KEY", Bytes: private},
		name + ".crt": {Type: "CERTIFICATE", Bytes: der},
	} {
		if err := os.WriteFile(filepath.Join(l.Dir, "pki", file), pem.EncodeToMemory(block), 0o600); err != nil {
			return fail(err)
		}
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return fail(err)
	}
	return parsed, key, nil
}

// keys are the files that a daemon needs for TLS.
type keys struct {
	private, certificate, ca string
}

func (l *Lab) keys(name string) keys {
	pki := filepath.Join(l.Dir, "pki")
	return keys{filepath.Join(pki, name+".key"), filepath.Join(pki, name+".crt"), filepath.Join(pki, "ca.crt")}
}
